"""MCUboot image files: header, TLVs, hashes, trailer; packages of them; and what a wrong file really is.

All that can be said about an image from its bytes alone lives here; nothing here talks to a device or checks a
signature. Everything is little-endian.
"""

from mcumgrx.mcuboot.file_bytes import FileBytes
from mcumgrx.mcuboot.files import IN_MEMORY_BYTES, load_image, load_package
from mcumgrx.mcuboot.header import HEADER_BYTES, IMAGE_MAGIC, ImageFlag, ImageHeader, Version, parse_header
from mcumgrx.mcuboot.image import Image, parse_image
from mcumgrx.mcuboot.keys import sample_key, signed_by
from mcumgrx.mcuboot.package import ImageRole, Package, PackageImage, PackageKind, by_slot, parse_package
from mcumgrx.mcuboot.tlv import (
    HASH_ALGORITHMS,
    INSTALLER,
    MAX_FILE_BYTES,
    TLV_INFO_MAGIC,
    TLV_PROT_INFO_MAGIC,
    Dependency,
    Tlv,
    TlvType,
    parse_tlvs,
)
from mcumgrx.mcuboot.trailer import MAGIC_BYTES, TrailerLayout, TrailerVariant, trailer_magic

__all__ = [
    "HASH_ALGORITHMS",
    "HEADER_BYTES",
    "IMAGE_MAGIC",
    "INSTALLER",
    "IN_MEMORY_BYTES",
    "MAGIC_BYTES",
    "MAX_FILE_BYTES",
    "TLV_INFO_MAGIC",
    "TLV_PROT_INFO_MAGIC",
    "Dependency",
    "FileBytes",
    "Image",
    "ImageFlag",
    "ImageHeader",
    "ImageRole",
    "Package",
    "PackageImage",
    "PackageKind",
    "Tlv",
    "TlvType",
    "TrailerLayout",
    "TrailerVariant",
    "Version",
    "by_slot",
    "load_image",
    "load_package",
    "parse_header",
    "parse_image",
    "parse_package",
    "parse_tlvs",
    "sample_key",
    "signed_by",
    "trailer_magic",
]
