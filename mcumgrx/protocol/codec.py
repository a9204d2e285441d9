"""The codec in use: the compiled one when it is there, else the readable reference with the same names and results.

Here: the choice, and nothing else. The logic is in ``ext/_codec.pyx`` (compiled to `mcumgrx._codec`) and in
`mcumgrx._pycodec`. ``MCUMGRX_PURE_PYTHON=1`` in the environment forces the reference.

`IMPLEMENTATION` is ``"compiled"`` or ``"python"``; `FALLBACK_REASON` says why it is the reference, and is empty when
it is not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

__all__ = [
    "FALLBACK_REASON",
    "HEADER_SIZE",
    "IMPLEMENTATION",
    "ConsoleDecoder",
    "Reassembler",
    "build_console_frame",
    "build_message",
    "build_upload",
    "decode_item",
    "pack_header",
    "read_upload_offset",
    "split_messages",
    "unpack_header",
]

IMPLEMENTATION: Literal["compiled", "python"]
FALLBACK_REASON: str

if TYPE_CHECKING:  # its types are those of both
    from mcumgrx._pycodec import (
        HEADER_SIZE,
        ConsoleDecoder,
        Reassembler,
        build_console_frame,
        build_message,
        build_upload,
        decode_item,
        pack_header,
        read_upload_offset,
        split_messages,
        unpack_header,
    )
else:
    try:
        if os.environ.get("MCUMGRX_PURE_PYTHON", "") not in ("", "0"):
            raise ImportError("MCUMGRX_PURE_PYTHON is set")
        import mcumgrx._codec as _chosen
    except ImportError as error:
        # Not wanted, not built here (no compiler), or built for something else: slower, but all of it works.
        import mcumgrx._pycodec as _chosen

        IMPLEMENTATION, FALLBACK_REASON = "python", str(error)
    else:
        IMPLEMENTATION, FALLBACK_REASON = "compiled", ""
    globals().update((name, getattr(_chosen, name)) for name in _chosen.__all__)
