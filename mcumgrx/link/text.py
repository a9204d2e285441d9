"""`DeviceText`: what a device prints beside its answers, as whole characters, for a listener or the log."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable

log = logging.getLogger("mcumgrx.link")
device_log = logging.getLogger("mcumgrx.device")

# A device that prints without ever ending a line is logged in pieces of this many characters.
_MAX_LOG_LINE = 4096


class DeviceText:
    """Passes text on to `listener`; without one, a record of the log `mcumgrx.device` for each line."""

    def __init__(self, listener: Callable[[str], None] | None) -> None:
        self.listener = listener
        self._unlogged = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> None:
        """Take what has come, however it was cut."""
        if text := self._decoder.decode(data):
            if self.listener is None:
                self._log(text)
                return
            try:
                self.listener(text)
            except Exception:  # a listener's mistake must not end the link
                log.exception("the listener for device text failed")

    def _log(self, text: str) -> None:
        *lines, self._unlogged = (self._unlogged + text).split("\n")
        if len(self._unlogged) > _MAX_LOG_LINE:
            lines.append(self._unlogged)
            self._unlogged = ""
        for line in lines:
            device_log.info("%s", line.rstrip("\r"))
