"""`ZephyrGroup`: the command of group 63 over a client."""

from __future__ import annotations

from mcumgrx.plugin_api import Group, McumgrError, SmpError, explaining

from .messages import EraseStorage, ZephyrErrorCode

_NOT_BUILT = (
    "its firmware was built without CONFIG_MCUMGR_GRP_ZBASIC, or without CONFIG_MCUMGR_GRP_ZBASIC_STORAGE_ERASE; in "
    "MCUboot's recovery that is CONFIG_BOOT_MGMT_CUSTOM_STORAGE_ERASE"
)
_UNANSWERED = (
    "it is not asked again: the storage may be erased, or still be being erased; look before you try again. A device "
    "that speaks SMP version 1 sends an answer that cannot be read when the erase fails"
)


class ZephyrGroup(Group):
    """Group 63 of a connected device. Every method raises the errors of `Client.request`."""

    async def erase_storage(self) -> None:
        """Erase the storage partition: settings, bonds and all else in it. Asked once, never repeated.

        What the firmware holds in RAM stays until it restarts, and may be stored again.
        """
        # A harmless request first: from who is silent by now, nothing has been erased.
        await self.client.params()
        not_opened = (SmpError.NO_ENTRY, ZephyrErrorCode.FLASH_OPEN_FAILED.hint)  # its form in SMP version 1
        with explaining((SmpError.NOT_SUPPORTED, _NOT_BUILT), not_opened):
            try:
                await self.client.request(EraseStorage(), repeats=0)
            except McumgrError as error:
                if error.may_be_done and self.client.last_heard_s is not None:
                    error.hint = _UNANSWERED
                raise
