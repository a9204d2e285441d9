"""Which upload was interrupted, by device: so that a plan can say how much of a file is there before a byte is sent.

Kept in a file of the folder that `memory.cache_folder` names. It is only ever told: the device's answer to the first
chunk decides where an upload goes on, and one that has restarted meanwhile begins anew. So a device is known here by
its address where nothing better tells it from others, and nothing here fails: what cannot be read is not known.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .link.profile import Begun
from .locks import replace_text

log = logging.getLogger("mcumgrx.memory")

__all__ = ["InterruptedUploads"]

_FILE = "uploads.json"
_MOST = 100
_DAYS = 7.0
_MOST_BYTES = 1 << 16
_MOST_SIZE = 1 << 32
_MOST_NAME = 300


class InterruptedUploads:
    """The uploads that were interrupted last. Of two processes that write at once, the last one wins.

    Arguments:
        folder: where the file lies.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Callable[[], Path], *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def recall(self, device: str) -> Begun:
        """Of this device; nothing where nothing is known."""
        entry = self._read().get(device)
        return Begun() if entry is None else Begun(bytes.fromhex(entry["session"]), entry["done"])

    def remember(self, device: str, begun: Begun) -> None:
        """Keep it for the next program, or forget it where it has come to an end."""
        entries = self._read()
        entries.pop(device, None)
        if begun.session is not None and begun.done:
            entries[device] = {"session": begun.session.hex(), "done": begun.done, "at": int(self._clock())}
        try:
            self._write(dict(list(entries.items())[-_MOST:]))
        except OSError as error:
            log.info("the interrupted upload is not kept: %s", error)

    def forget(self, device: str | None = None) -> None:
        """Forget that of this device, or all of them."""
        try:
            self._write({name: entry for name, entry in self._read().items() if device not in (None, name)})
        except OSError as error:
            log.info("the interrupted uploads are not forgotten: %s", error)

    def _read(self) -> dict[str, dict[str, Any]]:
        """What makes sense of the file, the oldest first."""
        try:
            with open(self._folder() / _FILE, "rb") as file:
                content = json.loads(file.read(_MOST_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict):
            return {}
        now = self._clock()
        return {name: entry for name, entry in content.items() if len(name) <= _MOST_NAME and _is_sound(entry, now)}

    def _write(self, entries: dict[str, dict[str, Any]]) -> None:
        folder = self._folder()
        path = folder / _FILE
        if not entries:
            path.unlink(missing_ok=True)
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_text(path, json.dumps(entries, indent=1))


def _is_sound(entry: object, now: float) -> bool:
    if not isinstance(entry, dict):
        return False
    session, done, at = entry.get("session"), entry.get("done"), entry.get("at")
    if not (isinstance(session, str) and isinstance(done, int) and isinstance(at, int)):
        return False
    try:
        bytes.fromhex(session)
    except ValueError:
        return False
    return 0 < done < _MOST_SIZE and -1 <= (now - at) / 86400 <= _DAYS
