"""Numbers with which devices say no: the tables of the SMP layer and of the groups that the core itself uses.

The tables of all other groups come with their plugins: whoever knows those tells `error_table` where to look.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ErrorCode
from ..hints import Hint, Run
from .header import GroupId


class SmpError(ErrorCode):
    """`MGMT_ERR`: codes of the SMP layer itself, in the plain `rc` form (Zephyr `mgmt_defines.h`)."""

    OK = 0, "success"
    UNKNOWN = 1, "unknown error", "anything can be behind it; the device's log tells"
    NO_MEMORY = 2, "the device has no free buffer", "try again, with fewer requests at once or a smaller chunk"
    INVALID = 3, "a value in the request is not valid", "its firmware may be older, and not know all that was asked"
    TIMEOUT = 4, "the device gave up waiting", "something in it is slow or hangs: try again, or reset it"
    NO_ENTRY = 5, "there is no such item", "it has none of this name or number"
    BAD_STATE = 6, "that is not possible in the device's present state"
    MESSAGE_SIZE = 7, "the answer does not fit the device's buffer", "raise CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE"
    NOT_SUPPORTED = (
        8,
        "the device does not know this command",
        "its firmware was built without this command group or command",
    )
    CORRUPT = 9, "the device received a damaged request", "the link damages bytes: is its speed right?"
    BUSY = 10, "the device is busy", "try again"
    ACCESS_DENIED = 11, "the device's application does not allow it", "its firmware decides what it allows, and when"
    TOO_OLD = (
        12,
        "the device no longer speaks SMP version 1",
        "this program falls back to version 1 where answers stay out: try again",
    )
    TOO_NEW = (
        13,
        "the device does not speak this SMP version yet",
        "it is older than SMP version 2, which is tried first: try again",
    )


# What servers send for whatever has no code of its own.
_LOG = "anything can be behind it; the device's log tells"
_FLASH = "its flash does not work, or is laid out in another way than the firmware thinks; the device's log tells"
_OWN_REQUEST = "it arrived damaged, or the device's buffers are smaller than it says: try --chunk 64"
_AGAIN = "upload the file again, from its beginning"
_OLDER = "its firmware may be older, and know less of it"


class OsErrorCode(ErrorCode):
    """Codes of group 0 (Zephyr `os_mgmt.h`)."""

    UNKNOWN = 1, "unknown error", _LOG
    INVALID_FORMAT = 2, "the format of the request is not valid", _OLDER
    QUERY_YIELDS_NO_ANSWER = 3, "the bootloader does not know this query", _OLDER
    RTC_NOT_SET = 4, "the clock has not been set", Hint("set it with ", Run("os datetime --set now"))
    RTC_COMMAND_FAILED = 5, "the clock did not take the command", "its driver says why in the device's log"
    QUERY_RESPONSE_VALUE_NOT_VALID = (
        6,
        "the bootloader's answer to the query makes no sense",
        "bootloader and firmware may be of different ages",
    )


_UNCONFIRMED = Hint(
    "the running image may be on trial, or another one marked for the next boot: see ", Run("image list")
)
_HASHES = Hint("see ", Run("image list"), " for the hashes in the device")
_IN_SLOT = "upload the image again, if 'image inspect' finds nothing wrong with its file"
_SIZES = Hint("see ", Run("image slots"), " for the sizes")


class ImageErrorCode(ErrorCode):
    """Codes of group 1 (Zephyr `img_mgmt.h`)."""

    UNKNOWN = 1, "unknown error", _LOG
    FLASH_CONFIG_QUERY_FAIL = 2, "the flash layout cannot be read", _FLASH
    NO_IMAGE = 3, "there is no image in the slot", "upload one first"
    NO_TLVS = 4, "the image has no TLV area", "sign the image with imgtool"
    INVALID_TLV = 5, "the image has a broken TLV area", _IN_SLOT
    TLV_MULTIPLE_HASHES_FOUND = 6, "the image has several hashes", _IN_SLOT
    TLV_INVALID_SIZE = 7, "a TLV of the image has the wrong size", _IN_SLOT
    HASH_NOT_FOUND = (
        8,
        "no slot holds an image with this hash",
        _HASHES,
    )
    NO_FREE_SLOT = 9, "no slot is free: both are in use", _UNCONFIRMED
    FLASH_OPEN_FAILED = (
        10,
        "the slot cannot be opened",
        Hint("does the device have this slot? See ", Run("image slots")),
    )
    FLASH_READ_FAILED = 11, "reading the flash failed", _FLASH
    FLASH_WRITE_FAILED = 12, "writing the flash failed", _FLASH
    FLASH_ERASE_FAILED = 13, "erasing the flash failed", _FLASH
    INVALID_SLOT = 14, "there is no such slot", Hint("see ", Run("image slots"))
    NO_FREE_MEMORY = 15, "the device has no memory left for the upload", "reset the device and try again"
    FLASH_CONTEXT_ALREADY_SET = (
        16,
        "an interrupted upload is still open",
        "upload the same file again to resume it, or reset the device",
    )
    FLASH_CONTEXT_NOT_SET = 17, "no upload is open", _AGAIN
    FLASH_AREA_DEVICE_NULL = 18, "the slot has no flash device", _FLASH
    INVALID_PAGE_OFFSET = 19, "the flash page cannot be found", _FLASH
    INVALID_OFFSET = 20, "the upload request has no offset", _OWN_REQUEST
    INVALID_LENGTH = 21, "the first upload request has no length", _OWN_REQUEST
    INVALID_IMAGE_HEADER = 22, "the first chunk is too short to hold an image header", "use larger chunks"
    INVALID_IMAGE_HEADER_MAGIC = (
        23,
        "that is not an MCUboot image",
        "use the signed file, such as zephyr.signed.bin; if a slot is meant, its trailer is damaged: erase it",
    )
    INVALID_HASH = 24, "the hash is not of the length that the device works with", _HASHES
    INVALID_FLASH_ADDRESS = (
        25,
        "the image was built for another slot",
        "with direct XIP send the variant built for the slot that is not running",
    )
    VERSION_GET_FAILED = 26, "the version of the running image cannot be read", "leave out --upgrade-only"
    CURRENT_VERSION_IS_NEWER = (
        27,
        "the running version is not older",
        "leave out --upgrade-only to install it all the same",
    )
    IMAGE_ALREADY_PENDING = (
        28,
        "an image is already marked for the next boot",
        "reset the device to boot it, or erase the slot first",
    )
    INVALID_IMAGE_VECTOR_TABLE = (
        29,
        "the trailer of the running image is damaged",
        "no mark can be set while that runs: write its slot anew, with the bootloader's recovery or a debugger",
    )
    INVALID_IMAGE_TOO_LARGE = 30, "the image does not fit the slot", _SIZES
    INVALID_IMAGE_DATA_OVERRUN = 31, "more data than announced was sent", _AGAIN
    IMAGE_CONFIRMATION_DENIED = 32, "the device does not allow this image to be confirmed", "test it first"
    IMAGE_SETTING_TEST_TO_ACTIVE_DENIED = 33, "the running image cannot be set to test", "it runs already"
    ACTIVE_SLOT_NOT_KNOWN = 34, "the device does not know which slot is running", _FLASH


_Find = Callable[[int], type[ErrorCode] | None]
_OURS: dict[int, type[ErrorCode]] = {GroupId.OS: OsErrorCode, GroupId.IMAGE: ImageErrorCode}
_find_more: _Find = _OURS.get


def look_for_tables(find: _Find) -> None:
    """From now on `find` is asked for the tables of groups that are not here. It raises nothing."""
    global _find_more
    _find_more = find


def error_table(group: int) -> type[ErrorCode] | None:
    """The codes of a group, or None where nobody knows them."""
    return _OURS.get(group) or _find_more(group)
