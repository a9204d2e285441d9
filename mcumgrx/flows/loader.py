"""The plan of an update through a firmware loader: into it, over the application, and back.

Pure: `through_loader` carries it out. From Nordic's bare-metal SDK (sdk-nrf-bm: applications/firmware_loader,
applications/installer, samples/boot/mcuboot_recovery_entry), whose bootloader says mode 7:

* The application in slot 0 writes no images, and mostly lists none. A reset with boot mode 1 starts the loader, which
  lies in slot 1; so does any reset where no valid application is there. An upload that is cut off ends so.
* Over Bluetooth LE the loader has another address, and a name that the application can give it for the next time
  (setting `fw_loader/adv_name`, written and saved). It is kept in RAM, and lost with the power.
* There are no marks and no trials: a reset starts what is valid.
* An installer brings SoftDevice and loader. It runs in the application's place, and removes itself, so that the loader
  comes back, under its default name; the application has to follow, always.
"""

from __future__ import annotations

import hashlib

from ..hints import Hint, Run
from ..mcuboot import Image
from .device_state import DeviceState
from .fit import Fit
from .plan import EnterLoader, Erase, Install, NameLoader, Prove, Reset, Step, Upload, UploadInstaller

__all__ = ["LOADER_NAME", "NAME_SETTING", "loader_name", "plan_through_loader"]

LOADER_NAME = "nRF_BM_MCUmgr"
"""What a loader calls itself where nobody has named it (`CONFIG_APP_FIRMWARE_LOADER_BLE_DEVICE_NAME`)."""

NAME_SETTING = "fw_loader/adv_name"
"""The setting with its name, of 16 bytes at most (`BLE_RMEM_MAX_NAME_SIZE`)."""


def loader_name(address: str) -> str:
    """What the loader of the device at `address` is to be called: the same each time, so that a later run finds it."""
    return f"FL_{hashlib.sha256(address.encode()).hexdigest()[:10]}"


def plan_through_loader(fit: Fit, gate: list[Step], installer: Image | None) -> list[Step]:
    """The steps that bring the file, and before it the `installer`; `gate` are those between the proof and the end.

    In the loader itself they are planned anew, because only there it is known what lies in the slots.
    """
    way = _Way(fit, installer)
    way.check()
    steps = [*way.enter(), *way.install(), *way.transfer()]
    if fit.stays_staged:
        if gate:
            fit.notes.append("nothing is checked: the new image is not started")
        if steps:
            fit.warnings.append("the device stays in its firmware loader until it is reset")
        return steps
    return [*steps, Reset(), Prove(fit.new), *gate]


class _Way:
    def __init__(self, fit: Fit, installer: Image | None) -> None:
        self.fit = fit
        self.state: DeviceState = fit.state
        self.installer = installer
        held = next((slot for slot in self.state.images.slots if slot.slot == 0), None)
        self.held = held.hash if held is not None and self.state.in_loader else None

    def check(self) -> None:
        fit = self.fit
        if fit.policy.rollback:
            raise fit.refuse(
                f"{fit.new} would stay whatever its health, so that --rollback cannot be kept",
                "leave it out: a firmware loader knows no way back",
            )
        fit.check_hash_type()
        fit.check_kind()
        self._check_installer()
        fit.check_others()
        if fit.policy.trim:
            fit.check_padding()
        if self.state.slots is None and not self.state.in_loader:
            fit.notes.append("whether the file fits is seen once the loader answers, before it is sent")
        fit.check_size()

    def _check_installer(self) -> None:
        fit, both = self.fit, "name both files, and the application follows the installer: mcumgrx dfu INSTALLER APP"
        if self.installer is not None and fit.stays_staged:
            raise fit.refuse(
                "the application follows an installer only once that has run, and --mode upload-only starts nothing",
                Hint("leave out --mode upload-only, or bring the installer alone: ", Run("dfu", "INSTALLER")),
            )
        if self.installer is not None and fit.image.installer:
            raise fit.refuse("both files are installers, and none is the application", both)
        if self.installer is not None:
            Fit(self.installer, fit.state, fit.policy, 0, fit.files, together=False).check_size()
        elif fit.image.installer and not fit.stays_staged:
            raise fit.refuse(
                "the file is an installer of SoftDevice and firmware loader: it removes itself once it has run, and "
                "leaves the device without an application",
                both,
            )

    def enter(self) -> list[Step]:
        if self.state.in_loader:
            return []
        name = self.state.loader
        return [NameLoader(name), EnterLoader(name)] if name is not None else [EnterLoader()]

    def install(self) -> list[Step]:
        if self.installer is None:
            return []
        version, size = str(self.installer.version), self.installer.size
        run = Install(version, None if self.state.loader is None else LOADER_NAME)
        self.fit.for_good(
            f"the installer {version} takes the application's place and goes: until {self.fit.new} has followed, the "
            "device has no application"
        )
        if self.held == self.installer.hash and not self.fit.policy.erase:
            self.fit.notes.append(f"the installer {version} is already in slot 0: no upload")
            return [run]
        return [UploadInstaller(size, version), run]

    def transfer(self) -> list[Step]:
        fit = self.fit
        if self.held == fit.image.hash and self.installer is None and not fit.policy.erase:
            fit.notes.append(f"{fit.new} is already in slot 0: no upload")
            return []
        fit.for_good("a firmware loader writes the file over the application: there is no way back")
        upload = Upload(fit.sent.size, 0, fit.new, trimmed=fit.sent is not fit.image)
        return [Erase(0), upload] if fit.policy.erase else [upload]
