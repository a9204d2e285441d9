"""What a device with a firmware loader has in particular: groups that only one of its programs serves, and installers.

As in the bare-metal SDK of Nordic (sdk-nrf-bm). The loader lies in slot 1; MCUboot runs it where the application in
slot 0 is not valid, or a reset asks for it. The application writes no images, and usually lists none. It can give the
loader a name for the next time; that is kept in RAM, and forgotten when the application starts
(samples/boot/mcuboot_recovery_entry, subsys/storage/ble_rmem).
"""

from __future__ import annotations

from mcumgrx.protocol.header import GroupId
from mcumgrx.sim.bootloader import SECONDARY, Bootloader, Mode
from mcumgrx.sim.config import DeviceConfig
from mcumgrx.sim.groups.settings import SettingsConfig, SettingsHandler
from mcumgrx.sim.images import read_application

__all__ = ["NAME_KEY", "hidden_groups", "loader_settings", "run_installer"]

NAME_KEY = "fw_loader/adv_name"
"""The setting that names the loader."""

_NAME_BYTES = 16  # BLE_RMEM_MAX_NAME_SIZE
_SERVED = (GroupId.OS, GroupId.IMAGE)  # applications/firmware_loader/ble_mcumgr/prj.conf


def loader_settings() -> SettingsConfig:
    """The usual settings, and the loader's name, which can be written and saved but not read."""
    root, _, key = NAME_KEY.partition("/")
    name = SettingsHandler(root, {key: b""}, readable=False, value_max=_NAME_BYTES)
    return SettingsConfig(handlers=(*SettingsConfig().handlers, name))


def hidden_groups(config: DeviceConfig, running_slot: int, groups: frozenset[int]) -> frozenset[int]:
    """Which of `groups` the program that runs does not serve."""
    if config.mode is not Mode.FIRMWARE_LOADER:
        return frozenset()
    if running_slot == SECONDARY:
        return groups.difference(_SERVED)
    return frozenset() if config.application_lists else frozenset({GroupId.IMAGE})


def run_installer(bootloader: Bootloader) -> bool:
    """Let the application do its work, if it is an installer: whether it is one.

    It writes the loader that it holds, if that fits, and then clears its own header, so that no application is left
    (applications/installer). It may be cut off at any operation, and begins anew at its next start.
    """
    application, place = bootloader.slots
    loader = read_application(application.content()).loader
    if not loader:
        return False
    if len(loader) <= place.size and place.read(0, len(loader)) != loader:
        place.erase()
        place.write(0, loader)
    application.erase_sector(0)
    return True
