"""The commands `mcumgrx zephyr …`. Imports nothing heavy: help must stay quick."""

from __future__ import annotations

from dataclasses import dataclass

from mcumgrx.plugin_api import CliContext, Hint, Run, UsageError, cli_command


@dataclass(frozen=True, slots=True)
class EraseResult:
    """The storage partition is erased, by what the device says; nothing can be read that shows it."""

    def lines(self) -> list[str]:
        return [
            "the storage is erased, says the device; nothing can be read that shows it",
            Hint("what the firmware has in RAM stays until the device restarts: ", Run("os reset")),
        ]


@cli_command(epilog="mcumgrx zephyr erase-storage --yes -d serial:/dev/ttyACM0")
async def erase_storage(context: CliContext) -> EraseResult:
    """Erase the device's storage partition: settings, Bluetooth bonds, and all else that its firmware keeps there.

    It asks before, unless --yes is given. What the firmware has in RAM stays until the device restarts.
    """
    from .group import ZephyrGroup

    if not await context.confirm("Erase all settings, bonds and other data that the device has stored?"):
        raise UsageError("nothing was erased", hint="answer the question with y, or give --yes")
    async with context.connect() as client:
        await client.group(ZephyrGroup).erase_storage()
    return EraseResult()
