"""What the text that a device prints tells of its start: that it has begun, and that its application is up.

Pure, and careful: on a serial line a request that comes while MCUboot waits for one holds the device in the
bootloader's recovery. So one banner of Zephyr alone says nothing: MCUboot is itself a program of Zephyr, and older ones
print the same. What says that an application is up:

* anything after MCUboot's "Jumping to the … image slot";
* a banner of Zephyr or of an SDK after any line of MCUboot's, or after another banner;
* a log line of a module that is not MCUboot's, or a prompt of the shell, after any of these.
"""

from __future__ import annotations

import re
from enum import IntEnum

# Longer lines hold no sign of a start.
_MOST_LINE = 400

_BANNER = re.compile(r"\*\*\* Booting (\S+)")
# MCUboot's own lines: "I: Starting bootloader", "I: Swap type: test", with or without a time, a level and a module.
_BOOTLOADER = re.compile(
    r"<\w+> mcuboot\w*:|Starting bootloader|Primary image: |Secondary image: |Scratch: magic|Boot source: "
    r"|Swap type: |Image index: |Image version: |Bootloader chainload"
)
_JUMP = re.compile(r"Jumping to the .*image slot")
# Deferred logging of Zephyr: "[00:00:01.000,000] <inf> app: text".
_LOG = re.compile(r"<(?:inf|wrn|err|dbg)> (?!mcuboot)\w")
_PROMPT = re.compile(r"^\S*:~\$ *")  # of its shell: "uart:~$ "; MCUboot has none
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Sign(IntEnum):
    """How far a start has come, as far as the text tells."""

    NONE = 0
    STARTED = 1
    """Something has started, the bootloader or the application."""
    BOOTLOADER = 2
    """The bootloader has printed."""
    JUMPED = 3
    """The bootloader has handed over."""
    BOOTED = 4
    """The application is up."""


class BootText:
    """Reads the text of a device, in any cut, for signs of a start."""

    def __init__(self) -> None:
        self.sign = Sign.NONE
        self._line = ""

    @property
    def started(self) -> bool:
        """Whether the device has been reset, for certain."""
        return self.sign is not Sign.NONE

    @property
    def booted(self) -> bool:
        """Whether its application is up, for certain."""
        return self.sign is Sign.BOOTED

    def reset(self) -> None:
        """The device has been asked to start anew: what it printed before says nothing any more."""
        self.sign = Sign.NONE
        self._line = ""

    def feed(self, text: str) -> None:
        """The next characters. Only whole lines count, except for a prompt, which does not end."""
        *lines, rest = (self._line + text).replace("\r", "\n").split("\n")
        self._line = rest[:_MOST_LINE]
        for line in lines:
            self._read(line)
        if self.sign is not Sign.NONE and _PROMPT.search(_COLOURS.sub("", self._line)) is not None:
            self.sign = Sign.BOOTED

    def _read(self, line: str) -> None:
        line = _COLOURS.sub("", line).strip()
        if not line:
            return
        if (banner := _BANNER.search(line)) is not None:
            if banner[1] == "MCUboot":
                self.sign = Sign.BOOTLOADER  # even after a sign of the application: it has crashed
            else:
                self.sign = Sign.STARTED if self.sign is Sign.NONE else Sign.BOOTED
        elif _BOOTLOADER.search(line) is not None:
            self.sign = Sign.BOOTLOADER
        elif _JUMP.search(line) is not None:
            self.sign = Sign.JUMPED
        elif self.sign is Sign.JUMPED or (self.sign is not Sign.NONE and (_LOG.search(line) or _PROMPT.search(line))):
            self.sign = Sign.BOOTED
