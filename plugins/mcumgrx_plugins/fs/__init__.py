"""Command group 8: files to and from the device, their sizes and hashes."""

from __future__ import annotations

from mcumgrx.plugin_api import CommandPlugin, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.fs.commands:"


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [GroupPlugin(8, "fs", "File system", load="mcumgrx_plugins.fs.group:FsGroup")]


@hookimpl
def mcumgrx_commands() -> list[CommandPlugin]:
    return [
        CommandPlugin("fs put", "Write a file into the device", load=_LOAD + "put"),
        CommandPlugin("fs get", "Read a file out of the device", load=_LOAD + "get"),
        CommandPlugin("fs size", "Show how large a file in the device is", load=_LOAD + "size"),
        CommandPlugin("fs hash", "Show the hash of a file in the device", load=_LOAD + "hash_file"),
        CommandPlugin("fs hashes", "Show which hashes the device can take", load=_LOAD + "hashes"),
        CommandPlugin("fs close", "Close the file that the device has open", load=_LOAD + "close"),
    ]
