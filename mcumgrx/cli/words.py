"""What was probably meant: words of other tools, of habit and of haste → commands and options that there are.

Pure: names in, suggestions out. The tree of commands says what there is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

# Words that do not stand for a command here, and what they are for, the likeliest first. The words are those of the
# mcumgr in Go, nrfutil, smpmgr and AuTerm, of bootloaders and of shells.
_SYNONYMS: Mapping[str, Sequence[str]] = {
    word: commands
    for words, commands in (
        ("flash program", ("dfu", "image upload")),
        ("upgrade update install ota fota fuota", ("dfu",)),
        ("write", ("image upload", "fs put", "settings set")),
        ("load", ("image upload",)),
        ("send upload", ("image upload", "fs put")),
        ("push", ("fs put", "image upload")),
        ("download pull receive cat", ("fs get",)),
        ("read", ("fs get", "settings get")),
        ("checksum sha256 crc crc32", ("fs hash",)),
        ("reset reboot restart", ("os reset",)),
        ("ping", ("os echo",)),
        ("info", ("os info", "image list")),
        ("uname", ("os info",)),
        ("version", ("--version", "os info", "image list")),
        ("versions status state images show ls", ("image list",)),
        ("list", ("image list", "scan")),
        ("slot", ("image slots",)),
        ("mark pending swap rollback revert", ("image test",)),
        ("accept permanent", ("image confirm",)),
        ("commit", ("image confirm", "settings commit")),
        ("wipe", ("image erase",)),
        ("format", ("zephyr erase-storage",)),
        ("clear", ("image erase", "cache clear")),
        ("delete rm", ("image erase", "settings delete")),
        ("parse verify check dump imgtool", ("image inspect",)),
        ("date time clock", ("os datetime",)),
        ("ps top threads taskstat", ("os tasks",)),
        ("mpstat memory", ("os pools",)),
        ("buffers", ("os params",)),
        ("config", ("settings get", "settings set")),
        ("statistics stats", ("stat list",)),
        ("console terminal interactive", ("shell open",)),
        ("exec execute", ("shell run",)),
        ("files file filesystem", ("fs get", "fs put")),
        ("find search discover devices ports connect", ("scan",)),
        ("simulate simulator", ("sim serve", "demo")),
        ("tutorial example", ("demo",)),
        ("plugin", ("plugins list",)),
        ("groups", ("enum list",)),
    )
    for word in words.split()
}

_MOST = 3


def meant_commands(words: Sequence[str], there: Iterable[str], section: str = "") -> list[str]:
    """The commands that the words, none of which is one, may have stood for; the likeliest first.

    Arguments:
        words: as they were typed, the unknown one first.
        there: all commands, as `os echo` or `dfu`, and the groups of commands by themselves.
        section: the group of commands that was asked for one, or empty.
    """
    every = list(there)
    word = words[0].lower().lstrip("-").replace("_", "-")
    inside = [name for name in every if name.startswith(f"{section} ")] if section else every
    last = {name: name.rpartition(" ")[2] for name in every}
    synonyms = [name for name in _SYNONYMS.get(word, ()) if name in every or name.startswith("--")]
    typed = f"{section} {word}".strip()

    # A command of two words, typed as one, the other way round, or in capitals; that of another group.
    found = [name for name in every if name.replace(" ", "") == typed.replace("-", "").replace(" ", "")]
    if len(words) > 1 and not section:
        found += [name for name in every if name == f"{words[1].lower()} {word}"]
    if section:
        ends = {name.rpartition(" ")[2] for name in synonyms}
        found += [name for name in inside if name in synonyms or last[name] in ends]
    found += [*synonyms, *(name for name in every if " " in name and last[name] == word)]
    if not found and section:
        found = _close(word, {last[name]: name for name in inside})
    elif not found:
        found = _close(word, {name: name for name in every})
        found += _close(word, {last[name]: name for name in reversed(every)}, cutoff=0.8)
    return list(dict.fromkeys(found))[:_MOST]


def _close(word: str, names: Mapping[str, str], cutoff: float = 0.6) -> list[str]:
    return [names[one] for one in difflib.get_close_matches(word, names, n=_MOST, cutoff=cutoff)]


def meant_options(typed: str, arguments: Sequence[str], there: Sequence[str]) -> list[str]:
    """The options that one which does not exist may have stood for, the likeliest first.

    Arguments:
        typed: the option that click has seen, which is `-j` where somebody wrote `-json`.
        arguments: the whole command line.
        there: all options of the command.
    """
    long = [name for name in there if name.startswith("--")]
    if not typed.startswith("--"):
        whole = [one.partition("=")[0] for one in arguments if one.startswith("-") and not one.startswith("--")]
        named = [f"-{one}" for one in whole if f"-{one}" in long]
        if named:
            return named[:1]
        return [name for name in there if name.lower() == typed.lower() and name != typed][:1]
    typed = typed.lower().replace("_", "-")
    if typed in long:
        return [typed]
    begin = [name for name in long if name.startswith(typed) and len(typed) > 3]
    return begin[:_MOST] or difflib.get_close_matches(typed, long, n=2, cutoff=0.7)
