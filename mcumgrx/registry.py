"""Finds the plugins, keeps them apart, and says what each supplies and what is wrong with it.

The one wrapper around pluggy. Entry points of the group `mcumgrx` are loaded and asked one at a time, our own first,
then by the name of the distribution, so that no plugin can stop or displace another. What a plugin's `load` names is
imported when somebody uses it; importing this module imports neither asyncio nor CBOR. Opening links is the business
of `session`, showing the list that of the command line.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import pluggy

from .errors import McumgrError, PluginError, UsageError
from .plugin_api import PROJECT, CommandPlugin, CommandSpec, GroupPlugin, Hooks, TransportPlugin

if TYPE_CHECKING:
    from .address import Address
    from .group import Group
    from .plugin_api import CommandFunction
    from .transport import Transport

__all__ = ["ENTRY_POINTS", "RESERVED_COMMANDS", "PluginRecord", "Registry", "default_registry"]

ENTRY_POINTS = "mcumgrx"
"""The entry-point group that plugins are found in."""

RESERVED_COMMANDS = frozenset({"cache", "capture", "demo", "dfu", "doctor", "plugins", "scan"})
"""First words of commands that belong to the core: no plugin can take them."""

_OUR_DISTRIBUTION = "mcumgrx"

_PLUGIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_COMMAND = re.compile(r"[a-z][a-z0-9-]*( [a-z][a-z0-9-]*)?")
_LOAD = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)

Description = TransportPlugin | GroupPlugin | CommandPlugin
D = TypeVar("D", bound=Description)


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One plugin as found, whether it works or not.

    Attributes:
        name: of the entry point; like every text here safe to print.
        version: of the distribution; empty when its metadata do not tell.
        supplies: what was taken over from it, such as `transport serial`, `group 0 os`, `command os echo`.
        error: what is wrong with it, or None. The parts in `supplies` work all the same.
        disabled: switched off by the user, and not even imported.
    """

    name: str
    version: str
    distribution: str
    supplies: tuple[str, ...] = ()
    error: str | None = None
    hint: str | None = None
    disabled: bool = False


class Registry:
    """All plugins of this Python environment.

    Arguments:
        disabled: names of plugins that are not to be loaded.
        entry_points: used instead of those that the installed distributions declare.
        path: folders to look for distributions in, instead of `sys.path`.

    A broken plugin never raises here: its trouble is in `plugins`, and all others work.
    """

    def __init__(
        self,
        *,
        disabled: Iterable[str] = (),
        entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
        path: Sequence[str] | None = None,
    ) -> None:
        self._transports: dict[str, TransportPlugin] = {}
        self._groups: dict[int, GroupPlugin] = {}
        self._roles: dict[str, GroupPlugin] = {}
        self._commands: dict[str, CommandPlugin] = {}
        self._owners: dict[Description, PluginRecord] = {}
        self._records: list[PluginRecord] = []
        found = _found(path) if entry_points is None else [_Found.of(point) for point in entry_points]
        self._load(found, set(disabled))

    # -- what there is ---------------------------------------------------------------------------------------------

    @property
    def transports(self) -> Mapping[str, TransportPlugin]:
        """The transports by scheme; one with aliases stands under each of them too."""
        return MappingProxyType(self._transports)

    @property
    def groups(self) -> Mapping[int, GroupPlugin]:
        """The command groups by number."""
        return MappingProxyType(self._groups)

    @property
    def commands(self) -> Mapping[str, CommandPlugin]:
        """The plugins' commands by name, which is one word or two."""
        return MappingProxyType(self._commands)

    @property
    def plugins(self) -> tuple[PluginRecord, ...]:
        """Every plugin that was found, in the order in which they were loaded."""
        return tuple(self._records)

    # -- what it is for --------------------------------------------------------------------------------------------

    def transport(self, address: Address) -> Transport:
        """The transport for `address`, not yet open.

        Raises `UsageError` for an unknown scheme or an address that the transport cannot take, `PluginError` when the
        plugin is broken.
        """
        plugin = self._transports.get(address.scheme)
        if plugin is None:
            raise self._unknown_scheme(address.scheme)
        kind = cast("type[Transport]", self.resolve(plugin, plugin.load))
        try:
            return kind(address)
        except McumgrError:
            raise
        except Exception as error:
            raise self._broken(plugin, f"cannot make a transport of {str(address)!r}: {_said(error)}") from error

    def group(self, kind: type) -> type[Group]:
        """The class for `kind`: a `Group` class is its own, a role of `mcumgrx.contracts` is filled by a plugin.

        Raises `PluginError` when no plugin fills the role.
        """
        from .group import Group

        if issubclass(kind, Group):
            return kind
        plugin = self._roles.get(kind.__name__) if kind.__module__ == "mcumgrx.contracts" else None
        if plugin is None:
            raise PluginError(f"no plugin supplies {kind.__name__}", hint=self._not_loaded() or _NOT_INSTALLED)
        found = cast("type[Group]", self.resolve(plugin, plugin.load))
        missing = [name for name in vars(kind) if not name.startswith("_") and not hasattr(found, name)]
        if missing:
            raise self._broken(plugin, f"{plugin.load} cannot be a {kind.__name__}: it lacks {', '.join(missing)}")
        return found

    def command(self, plugin: CommandPlugin) -> tuple[CommandFunction, CommandSpec]:
        """The function of a command and its parameters. Raises `PluginError`."""
        function = cast("CommandFunction", self.resolve(plugin, plugin.load))
        return function, cast(CommandSpec, getattr(function, "__mcumgrx_command__"))  # noqa: B009 - mypy

    def resolve(self, plugin: Description, load: str) -> object:
        """Import what `load`, one of the names in `plugin`, stands for, and check that it is of the right kind.

        Raises `PluginError` naming plugin and distribution.
        """
        module_name, _, attribute = load.partition(":")
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            raise self._broken(plugin, f"{module_name} cannot be imported: {_said(error)}") from error
        try:
            value: object = getattr(module, attribute)
        except (Exception, SystemExit) as error:  # a module may have a __getattr__ of its own
            raise self._broken(plugin, f"{module_name} has no {attribute!r}") from error
        problem = _unfit(plugin, load, value)
        if problem is not None:
            raise self._broken(plugin, f"{load} {problem}")
        return value

    # -- loading ---------------------------------------------------------------------------------------------------

    def _load(self, found: list[_Found], disabled: set[str]) -> None:
        found.sort(key=lambda one: (not one.ours, one.key, one.point.name if one.point else "", one.value))
        seen: dict[str, _Found] = {}
        for one in found:
            loading = _Loading(one)
            name = one.name
            if one.trouble is not None:
                loading.errors.append(one.trouble)
            elif not _PLUGIN_NAME.fullmatch(name):
                loading.errors.append("its name is not made of letters, digits, '.', '_' and '-'")
            elif name in seen:
                if (one.key, one.value) == (seen[name].key, seen[name].value):
                    continue  # the same one found twice: an editable install and its checkout, a folder named twice
                loading.errors.append(f"the name is taken by the plugin of {seen[name].distribution}")
            elif name in disabled:
                seen[name] = one
                loading.disabled = True
            else:
                seen[name] = one
                self._ask(loading)
            self._records.append(record := loading.record())
            for description in loading.taken:
                self._owners[description] = record
            if record.error:
                _log(record)

    def _ask(self, loading: _Loading) -> None:
        """Import one plugin and take over what its hooks return."""
        point = loading.found.point
        assert point is not None
        try:
            module = point.load()
        except (Exception, SystemExit) as error:
            loading.errors.append(f"it cannot be imported: {_said(error)}")
            return
        # A manager for each plugin: nothing that one does (a wrapper, a failure) can reach another's hooks.
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Hooks)
        try:
            manager.register(module, name=loading.found.name)
            manager.check_pending()
        except Exception as error:
            loading.errors.append(f"its hooks do not fit this version of mcumgrx: {_said(error)}")
            return
        hooks = manager.hook
        for transport in self._returned(loading, "mcumgrx_transports", hooks.mcumgrx_transports, TransportPlugin):
            self._take_transport(loading, transport)
        for group in self._returned(loading, "mcumgrx_groups", hooks.mcumgrx_groups, GroupPlugin):
            self._take_group(loading, group)
        for command in self._returned(loading, "mcumgrx_commands", hooks.mcumgrx_commands, CommandPlugin):
            self._take_command(loading, command)

    def _returned(self, loading: _Loading, name: str, hook: Callable[[], list[object]], kind: type[D]) -> list[D]:
        """What the plugin's hook returns, without what is no such description."""
        try:
            answers = hook()
        except (Exception, SystemExit) as error:
            loading.errors.append(f"its hook {name} failed: {_said(error)}")
            return []
        items: list[D] = []
        for answer in answers:
            if not isinstance(answer, (list, tuple)):
                loading.errors.append(f"its hook {name} returned {_kind(answer)} instead of a list")
                continue
            for item in answer:
                if not isinstance(item, kind):
                    loading.errors.append(f"its hook {name} returned {_kind(item)} in the list, not {kind.__name__}")
                else:
                    items.append(item)
        return items

    def _take_transport(self, loading: _Loading, plugin: TransportPlugin) -> None:
        taking = _Taking(loading, f"the transport {_shown(plugin.scheme)}", plugin)
        taking.texts("scheme", "summary", "load", "example")
        taking.check("aliases", lambda value: isinstance(value, tuple) and all(isinstance(one, str) for one in value))
        if taking.sound:
            for scheme in (plugin.scheme, *plugin.aliases):
                if not _SCHEME.fullmatch(scheme):
                    taking.refuse(f"{scheme!r} is not a scheme: lower-case letters, digits, '+', '.' and '-'")
            taking.loadable("load")
            for field in ("discover", "watch"):
                if getattr(plugin, field) is not None:
                    taking.loadable(field)
        if not taking.sound:
            return
        schemes = dict.fromkeys((plugin.scheme, *plugin.aliases))
        for scheme in schemes:
            if scheme in self._transports:
                taking.refuse(f"{scheme!r} is taken by the plugin {self._owner_name(self._transports[scheme])}")
        if not taking.sound:
            return
        for scheme in schemes:
            self._transports[scheme] = plugin
            loading.take(plugin, f"transport {scheme}")

    def _take_group(self, loading: _Loading, plugin: GroupPlugin) -> None:
        taking = _Taking(loading, f"the group {_shown(plugin.id)}", plugin)
        taking.texts("name", "summary", "load")
        taking.check("id", lambda value: type(value) is int and 0 <= value <= 0xFFFF)
        taking.check("fills", lambda value: value is None or (isinstance(value, str) and _IDENTIFIER.fullmatch(value)))
        taking.loadable("load")
        if taking.sound and plugin.id in self._groups:
            taking.refuse(f"the number is taken by the plugin {self._owner_name(self._groups[plugin.id])}")
        if not taking.sound:
            return
        self._groups[plugin.id] = plugin
        loading.take(plugin, f"group {plugin.id} {plugin.name}")
        if plugin.fills is None:
            return
        if plugin.fills in self._roles:
            # The group works by its own class; only flows do not use it.
            owner = self._owner_name(self._roles[plugin.fills])
            taking.refuse(f"the role {plugin.fills} is filled by the plugin {owner}; disable that to use this one")
        else:
            self._roles[plugin.fills] = plugin

    def _take_command(self, loading: _Loading, plugin: CommandPlugin) -> None:
        taking = _Taking(loading, f"the command {_shown(plugin.name)}", plugin)
        taking.texts("name", "summary", "load")
        if taking.sound and not _COMMAND.fullmatch(plugin.name):
            taking.refuse("a name is one word or two, of lower-case letters, digits and '-'")
        taking.loadable("load")
        if not taking.sound:
            return
        first = plugin.name.split(" ")[0]
        if first in RESERVED_COMMANDS:
            taking.refuse(f"{first!r} belongs to mcumgrx itself")
            return
        for name, other in self._commands.items():
            # "acme" cannot be both a command and a group of commands.
            if name == plugin.name or name == first or (plugin.name == first and name.startswith(f"{first} ")):
                taking.refuse(f"the name is taken by {name!r} of the plugin {self._owner_name(other)}")
                return
        self._commands[plugin.name] = plugin
        loading.take(plugin, f"command {plugin.name}")

    # -- errors ----------------------------------------------------------------------------------------------------

    def _owner_name(self, plugin: Description) -> str:
        record = self._owners.get(plugin)
        return repr(record.name) if record is not None else "itself"

    def _broken(self, plugin: Description, problem: str) -> PluginError:
        record = self._owners.get(plugin)
        if record is None:
            return PluginError(problem)
        return PluginError(
            f"the plugin {record.name!r} is broken: {problem}",
            name=record.name,
            distribution=record.distribution or None,
            hint=_repair(record.name, record.distribution),
        )

    def _unknown_scheme(self, scheme: str) -> McumgrError:
        if not self._transports:
            return PluginError("no plugin supplies a transport", hint=self._not_loaded() or _NOT_INSTALLED)
        for record in self._records:
            if record.name == scheme and record.disabled:
                return PluginError(
                    f"the plugin {scheme!r} is disabled",
                    name=record.name,
                    distribution=record.distribution or None,
                    hint=f"take it out of MCUMGRX_DISABLE_PLUGINS to use {scheme}: addresses",
                )
        known = ", ".join(f"{name}:" for name in sorted(self._transports))
        examples = [plugin.example for plugin in dict.fromkeys(self._transports.values()) if plugin.example]
        hint = f"known are {known}" + (f" (for example {examples[0]})" if examples else "")
        return UsageError(
            f"no plugin knows addresses that begin with '{scheme}:'",
            hint="; ".join(part for part in (hint, self._not_loaded()) if part),
        )

    def _not_loaded(self) -> str | None:
        """What a person whose plugin is missing should know, or None when all is well."""
        names = [
            f"{record.name} ({'disabled' if record.disabled else 'broken'})"
            for record in self._records
            if record.disabled or record.error
        ]
        return f"not all plugins work: {', '.join(names)}; see 'mcumgrx plugins list'" if names else None


_NOT_INSTALLED = "its own plugins come with an installed mcumgrx: pip install mcumgrx, or -e . in a checkout"


@functools.cache
def default_registry() -> Registry:
    """The registry of this environment, made once; `MCUMGRX_DISABLE_PLUGINS=a,b` switches plugins off."""
    names = os.environ.get("MCUMGRX_DISABLE_PLUGINS", "").split(",")
    return Registry(disabled=[name.strip() for name in names if name.strip()])


# -- finding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry point and whose it is; or, with `trouble`, a distribution whose entry points cannot be read."""

    point: importlib.metadata.EntryPoint | None
    distribution: str
    version: str
    trouble: str | None = None

    @classmethod
    def of(cls, point: importlib.metadata.EntryPoint) -> _Found:
        name, version = _name_and_version(point.dist) if point.dist is not None else ("", "")
        return cls(point, name, version)

    @property
    def key(self) -> str:
        """The distribution's name in the form by which names are compared (PEP 503)."""
        return re.sub(r"[-_.]+", "-", self.distribution).lower()

    @property
    def ours(self) -> bool:
        return self.key == _OUR_DISTRIBUTION

    @property
    def name(self) -> str:
        return self.point.name if self.point is not None else "?"

    @property
    def value(self) -> str:
        return self.point.value if self.point is not None else ""


def _found(path: Sequence[str] | None) -> list[_Found]:
    """All entry points of our group.

    Not by `importlib.metadata.entry_points`, which fails as a whole when one distribution's file cannot be read.
    """
    distributions = (
        importlib.metadata.distributions() if path is None else importlib.metadata.distributions(path=list(path))
    )
    found: list[_Found] = []
    keys: set[str] = set()
    for distribution in distributions:
        trouble = None
        points: list[importlib.metadata.EntryPoint] = []
        try:
            text = distribution.read_text("entry_points.txt")
            if not text or ENTRY_POINTS not in text:
                continue  # the common case, without parsing
            points = list(distribution.entry_points.select(group=ENTRY_POINTS))
        except Exception as error:
            trouble = f"its list of entry points cannot be read: {_said(error)}"
        name, version = _name_and_version(distribution)
        if trouble is not None and ENTRY_POINTS in name.lower():  # else most likely none of our business
            found.append(_Found(None, name, version, trouble))
        mine = [_Found(point, name, version) for point in points]
        # The first on the path counts, as in an import: an editable install and the egg-info in its checkout, say.
        if mine and mine[0].key not in keys:
            keys.add(mine[0].key)
            found += mine
    return found


def _name_and_version(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    try:
        metadata = distribution.metadata
        return str(metadata["Name"] or ""), str(metadata["Version"] or "")
    except Exception:  # missing or undecodable metadata, differently with each Python version
        return "", ""


# -- checking ---------------------------------------------------------------------------------------------------------


class _Loading:
    """One plugin while it is loaded."""

    def __init__(self, found: _Found) -> None:
        self.found = found
        self.errors: list[str] = []
        self.supplies: list[str] = []
        self.taken: list[Description] = []
        self.disabled = False

    def take(self, plugin: Description, what: str) -> None:
        self.taken.append(plugin)
        self.supplies.append(what)

    def record(self) -> PluginRecord:
        name, distribution = _printable(self.found.name), _printable(self.found.distribution)
        return PluginRecord(
            name=name,
            version=_printable(self.found.version),
            distribution=distribution,
            supplies=tuple(self.supplies),
            error=_printable("; ".join(self.errors)) or None,
            hint=_repair(name, distribution) if self.errors else None,
            disabled=self.disabled,
        )


class _Taking(Generic[D]):
    """One description while it is checked; `sound` until something is wrong with it."""

    def __init__(self, loading: _Loading, what: str, plugin: D) -> None:
        self._loading = loading
        self._what = what
        self._plugin = plugin
        self.sound = True

    def refuse(self, problem: str) -> None:
        self.sound = False
        self._loading.errors.append(f"{self._what}: {problem}")

    def check(self, field: str, good: Callable[[object], object]) -> None:
        value = getattr(self._plugin, field)
        if not good(value):
            self.refuse(f"its {field} cannot be {_shown(value)}")

    def texts(self, *fields: str) -> None:
        """These fields are text of one line, without control characters, which could play tricks with a terminal."""
        for field in fields:
            self.check(field, lambda value: isinstance(value, str) and value.isprintable())

    def loadable(self, field: str) -> None:
        self.check(field, lambda value: isinstance(value, str) and _LOAD.fullmatch(value))


def _unfit(plugin: Description, load: str, value: object) -> str | None:
    """Why `value` cannot be what `load` of this plugin should name, or None if it can."""
    if isinstance(plugin, TransportPlugin):
        if load in (plugin.discover, plugin.watch) and load != plugin.load:
            return None if callable(value) else "is not a function"
        from .transport import Transport

        return _unfit_class(value, Transport)
    if isinstance(plugin, GroupPlugin):
        from .group import Group

        problem = _unfit_class(value, Group)
        number = getattr(value, "id", None)
        if problem is None and number != plugin.id:
            return f"is for group {number}, not {plugin.id}"
        return problem
    if not callable(value) or not isinstance(getattr(value, "__mcumgrx_command__", None), CommandSpec):
        return "is not a function made with mcumgrx.plugin_api.command"
    return None


def _unfit_class(value: object, base: type) -> str | None:
    if not isinstance(value, type) or not issubclass(value, base):
        return f"is not a {base.__name__} class"
    missing: Iterable[str] = getattr(value, "__abstractmethods__", ())
    return f"lacks {', '.join(sorted(missing))}" if missing else None


# -- words ------------------------------------------------------------------------------------------------------------


def _repair(name: str, distribution: str) -> str:
    install = f"pip install --upgrade {distribution}" if distribution else "reinstall its distribution"
    return f"try '{install}', or switch it off with MCUMGRX_DISABLE_PLUGINS={name}"


def _log(record: PluginRecord) -> None:
    import logging  # only now: it costs every start a few milliseconds

    logging.getLogger("mcumgrx.registry").info("plugin %s (%s): %s", record.name, record.distribution, record.error)


_LONGEST_TEXT = 300


def _said(error: BaseException) -> str:
    """The error in one line that can be printed."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception of a stranger's own making
        text = ""
    return _printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)[:_LONGEST_TEXT]


def _shown(value: object) -> str:
    """A stranger's value, for a message."""
    try:
        return _printable(repr(value))[:_LONGEST_TEXT]
    except Exception:
        return _kind(value)


def _kind(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"


def _printable(text: str) -> str:
    """`text` with everything escaped that is not to be seen on a terminal as itself."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
