"""Messages of group 1.

Those that the core needs too are in `mcumgrx.protocol.standard` and `mcumgrx.transfer.plan`, and only named here;
a message that nobody but this group uses belongs here.
"""

from __future__ import annotations

from mcumgrx.protocol.codes import ImageErrorCode
from mcumgrx.protocol.standard import (
    EraseImage,
    ImageState,
    ReadImageState,
    ReadSlotInfo,
    Slot,
    SlotInfo,
    UploadProgress,
    WriteImageState,
)
from mcumgrx.transfer.plan import ImageUpload, UploadPlan

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
