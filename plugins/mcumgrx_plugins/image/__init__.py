"""Command group 1: the images in the device, and how new ones get there."""

from __future__ import annotations

from mcumgrx.plugin_api import CliCommand, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.image.commands:"

IMAGE = GroupPlugin(
    1,
    "image",
    "Images",
    load="mcumgrx_plugins.image.group:ImageGroup",
    errors="mcumgrx.plugin_api:ImageErrorCode",
    fills="ImageGroup",
)


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [IMAGE]


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand("image list", "Show the images in the device", load=_LOAD + "list_images"),
        CliCommand("image upload", "Transfer an image into the free slot", load=_LOAD + "upload"),
        CliCommand("image test", "Mark an image to be booted once", load=_LOAD + "test"),
        CliCommand("image confirm", "Make an image permanent", load=_LOAD + "confirm"),
        CliCommand("image erase", "Erase a slot", load=_LOAD + "erase"),
        CliCommand("image slots", "Show the slots and their sizes", load=_LOAD + "slots"),
        CliCommand("image inspect", "Show what an image file contains; needs no device", load=_LOAD + "inspect"),
    ]
