"""Command group 8: files to and from the device, their sizes and hashes."""

from __future__ import annotations

from mcumgrx.plugin_api import CliCommand, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.fs.commands:"

FS = GroupPlugin(
    8, "fs", "File system", load="mcumgrx_plugins.fs.group:FsGroup", errors="mcumgrx_plugins.fs.messages:FsErrorCode"
)


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [FS]


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand("fs put", "Write a file into the device", load=_LOAD + "put"),
        CliCommand("fs get", "Read a file out of the device", load=_LOAD + "get"),
        CliCommand("fs size", "Show how large a file in the device is", load=_LOAD + "size"),
        CliCommand("fs hash", "Show the hash of a file in the device", load=_LOAD + "hash_file"),
        CliCommand("fs hashes", "Show which hashes the device can take", load=_LOAD + "hashes"),
        CliCommand("fs close", "Close the file that the device has open", load=_LOAD + "close"),
    ]
