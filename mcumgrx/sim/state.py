"""Keeps a simulated device in a file, so that it outlives the process: flash, files, settings, uploads under way.

Between two processes a device has all the time it needs: a reset, a start or a watchdog that was under way when the
file was written has come to its end when it is read.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mcumgrx.errors import UsageError
from mcumgrx.locks import lock_file, replace_text
from mcumgrx.sim.bootloader import Mode
from mcumgrx.sim.device import Power, SimulatedDevice
from mcumgrx.sim.groups import Persistent
from mcumgrx.sim.groups.image import UploadSession
from mcumgrx.sim.groups.recovery import RecoveryUpload
from mcumgrx.sim.pairs import SLOTS_PER_IMAGE

FORMAT = "mcumgrx simulated device"
VERSION = 1
MAX_FILE_BYTES = 64 * 1024 * 1024


class StateFile:
    """The file at `path`. Lock it before anything else, unlock it at the end.

    Every method but `unlock` raises `UsageError`: a file that is damaged or of somebody else is never written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._saved: tuple[int, ...] | None = None
        self._saved_marks: tuple[object, ...] | None = None

    # -- one process at a time -----------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Keep other processes out. The system gives the lock back when a process ends, however it does."""
        if self._lock is not None:
            return
        name = self._lock_name
        for _ in range(100):
            try:
                descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise self._unusable(error) from error
            if not lock_file(descriptor):
                os.close(descriptor)
                raise UsageError(
                    f"the simulated device in {self.path} is in use by another process",
                    hint="wait until that has ended, or name another file",
                )
            # Its last owner may have removed the file between our opening and locking it.
            try:
                same = os.path.samestat(os.fstat(descriptor), os.stat(name))
            except OSError:
                same = False
            if same:
                self._lock = descriptor
                return
            os.close(descriptor)
        raise UsageError(f"the lock of {self.path} cannot be had", hint=f"remove {name}")

    def unlock(self) -> None:
        if self._lock is None:
            return
        descriptor, self._lock = self._lock, None
        if os.name == "nt":  # where what is open cannot be removed
            os.close(descriptor)
        with contextlib.suppress(OSError):  # another process has it open, or may not write here: it does no harm
            os.unlink(self._lock_name)
        if os.name != "nt":
            os.close(descriptor)

    @property
    def _lock_name(self) -> str:
        return f"{self.path}.lock"

    # -- reading and writing -------------------------------------------------------------------------------------------

    def changed(self) -> bool:
        """Whether somebody else has written the file since this object last read or wrote it."""
        return self._stamp() != self._saved

    def load(self, device: SimulatedDevice, now: float) -> bool:
        """Put what the file holds into the device, whose clock shows `now`; false if there is no file yet."""
        try:
            if self.path.stat().st_size > MAX_FILE_BYTES:
                raise self._foreign("it is too large")
            text = self.path.read_bytes()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unusable(error) from error
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._foreign("it is not JSON") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise self._foreign("it is something else")
        if found.get("version") != VERSION:
            raise UsageError(
                f"{self.path} has version {found.get('version')!r} of its format; this program reads {VERSION}",
                hint="it is left as it is; name another file",
            )
        geometry = _geometry(device)
        if found.get("geometry") != geometry:
            raise UsageError(
                f"{self.path} holds a device that was built differently: {found.get('geometry')}, not {geometry}",
                hint="use the options that the file was made with, or name another file",
            )
        try:
            went_on = _restore(device, found, now)
        except (KeyError, TypeError, ValueError, zlib.error, binascii.Error, IndexError) as error:
            raise self._foreign(f"it is damaged ({error})") from error
        self._saved = self._stamp()
        self._saved_marks = None if went_on else _marks(device)
        return True

    def save(self, device: SimulatedDevice) -> None:
        """Write the device to the file, if it has changed; the file is either the old or the new one at any time."""
        marks = _marks(device)
        if marks == self._saved_marks and self._saved is not None and not self.changed():
            return
        text = json.dumps(_snapshot(device), indent=1)
        try:
            replace_text(self.path, text)
        except OSError as error:
            raise self._unusable(error) from error
        self._saved, self._saved_marks = self._stamp(), marks

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _foreign(self, why: str) -> UsageError:
        return UsageError(
            f"{self.path} is not the state of a simulated device: {why}",
            hint="it is left as it is; name another file, or delete this one to begin with a new device",
        )

    def _unusable(self, error: OSError) -> UsageError:
        return UsageError(f"the state of the simulated device cannot be kept in {self.path}: {error.strerror or error}")


def _geometry(device: SimulatedDevice) -> dict[str, Any]:
    config = device.config
    images = {"images": config.images} if config.images > 1 else {}
    loader = {} if config.loader_size is None else {"loader_size": config.loader_size}
    return (
        images
        | loader
        | {
            "slot_size": config.slot_size,
            "sector_size": config.sector_size,
            "write_size": config.write_size,
            "mode": Mode(config.mode).name.lower(),
        }
    )


def _marks(device: SimulatedDevice) -> tuple[object, ...]:
    """What differs whenever the device has changed; cheap."""
    session = device.image.session
    upload = None if session is None else (session.offset, session.size, session.sha)
    recovery = device.recovery
    taken = None if recovery is None else (recovery.upload.offset, recovery.upload.image, recovery.upload.size)
    changes = tuple(group.changes for group in device.groups.values() if isinstance(group, Persistent))
    preferred = tuple(loader.preferred for loader in device.bootloaders)
    return device.flash.operations, upload, taken, changes, device.power, device.reset_pending, device.boots, preferred


def _snapshot(device: SimulatedDevice) -> dict[str, Any]:
    session = device.image.session
    return {
        "format": FORMAT,
        "version": VERSION,
        "geometry": _geometry(device),
        "power": (Power.RECOVERY if device.bound_for_recovery else device.power).value,
        "running_slot": device.running_slot,
        **({"running_slots": list(device.running_slots)} if device.config.images > 1 else {}),
        "reset_pending": device.reset_pending,
        "boot_mode": device.boot_mode,
        "preferred": [loader.preferred for loader in device.bootloaders],
        "upload": None
        if session is None
        else {**asdict(session), "sha": session.sha.hex(), "buffer": session.buffer.hex()},
        "recovery_upload": None if device.recovery is None else asdict(device.recovery.upload),
        "groups": {
            str(number): group.snapshot() for number, group in device.groups.items() if isinstance(group, Persistent)
        },
        "flash": base64.b64encode(zlib.compress(device.flash.snapshot(), 1)).decode("ascii"),
    }


def _restore(device: SimulatedDevice, found: dict[str, Any], now: float) -> bool:
    """Returns whether the device has gone on from what the file says."""
    size = device.flash.size
    content = zlib.decompressobj().decompress(base64.b64decode(found["flash"], validate=True), size + 1)
    if len(content) != size:
        raise ValueError("its flash has the wrong size")
    power = Power(found["power"])
    running, reset_pending = _running_slots(device, found), found["reset_pending"]
    if not isinstance(reset_pending, bool):
        raise TypeError("reset_pending is not true or false")
    session = None
    if found["upload"] is not None:
        upload = found["upload"]
        session = UploadSession(
            slot=_number(upload, "slot", len(device.image.slots) - 1),
            sha=bytes.fromhex(upload["sha"]),
            buffer=bytearray.fromhex(upload["buffer"]),
            **{name: _number(upload, name, size) for name in ("size", "offset", "erased")},
        )
        if len(session.buffer) > session.offset:
            raise ValueError("the upload's buffer is larger than its offset")
    boot_mode = _number(found, "boot_mode", 0xFF)
    preferred = found.get("preferred", [None] * len(device.bootloaders))
    if len(preferred) != len(device.bootloaders) or set(preferred) - {None, *range(SLOTS_PER_IMAGE)}:
        raise ValueError(f"preferred is {preferred!r}")
    recovery_upload = None
    if device.recovery is not None and found["recovery_upload"] is not None:
        upload = found["recovery_upload"]
        numbers = {name: _number(upload, name, 0xFFFFFFFF) for name in ("image", "size", "offset", "erased")}
        recovery_upload = RecoveryUpload(**numbers)
    if power is Power.RECOVERY and device.recovery is None:
        raise ValueError("it is in a recovery that it does not have")
    for number, group in device.groups.items():
        if isinstance(group, Persistent) and str(number) in found["groups"]:
            group.restore(found["groups"][str(number)])
    device.flash.restore(content)
    device.image.session = session
    if device.recovery is not None and recovery_upload is not None:
        device.recovery.upload = recovery_upload
    device.boot_mode = boot_mode
    for loader, slot in zip(device.bootloaders, preferred, strict=True):
        loader.preferred = slot
    device.resume(power, running, now, reset_pending=reset_pending)
    return reset_pending or device.power is not power


def _running_slots(device: SimulatedDevice, found: dict[str, Any]) -> list[int]:
    """One slot of each image, counted over all."""
    if len(device.bootloaders) == 1:
        return [_number(found, "running_slot", SLOTS_PER_IMAGE - 1)]
    slots = found["running_slots"]
    if not isinstance(slots, list) or len(slots) != len(device.bootloaders):
        raise ValueError(f"running_slots is {slots!r}")
    for image, slot in enumerate(slots):
        if isinstance(slot, bool) or not isinstance(slot, int) or slot // SLOTS_PER_IMAGE != image:
            raise ValueError(f"running_slots is {slots!r}")
    return slots


def _number(found: dict[str, Any], key: str, largest: int) -> int:
    value = found[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise ValueError(f"{key} is {value!r}")
    return value
