"""Messages of group 1.

Those that the core needs too are in `mcumgrx.protocol.standard` and `mcumgrx.transfer.plan`, and only named here;
a message that nobody but this group uses belongs here.
"""

from __future__ import annotations

from mcumgrx.plugin_api import (
    EraseImage,
    ImageErrorCode,
    ImageState,
    ImageUpload,
    ReadImageState,
    ReadSlotInfo,
    Slot,
    SlotInfo,
    UploadPlan,
    UploadProgress,
    WriteImageState,
)

__all__ = [
    "EraseImage",
    "ImageErrorCode",
    "ImageState",
    "ImageUpload",
    "ReadImageState",
    "ReadSlotInfo",
    "Slot",
    "SlotInfo",
    "UploadPlan",
    "UploadProgress",
    "WriteImageState",
]
