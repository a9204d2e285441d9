"""Command group 1: the images in the device, and how new ones get there."""

from __future__ import annotations

from mcumgrx.plugin_api import CommandPlugin, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.image.commands:"


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [GroupPlugin(1, "image", "Images", load="mcumgrx_plugins.image.group:ImageGroup", fills="ImageGroup")]


@hookimpl
def mcumgrx_commands() -> list[CommandPlugin]:
    return [
        CommandPlugin("image list", "Show the images in the device", load=_LOAD + "list_images"),
        CommandPlugin("image upload", "Transfer an image into the free slot", load=_LOAD + "upload"),
        CommandPlugin("image test", "Mark an image to be booted once", load=_LOAD + "test"),
        CommandPlugin("image confirm", "Make an image permanent", load=_LOAD + "confirm"),
        CommandPlugin("image erase", "Erase a slot", load=_LOAD + "erase"),
        CommandPlugin("image slots", "Show the slots and their sizes", load=_LOAD + "slots"),
        CommandPlugin("image inspect", "Show what an image file contains; needs no device", load=_LOAD + "inspect"),
    ]
