"""The codec in use: the compiled one when it is there, else the readable reference with the same names and results.

Here: the choice, and nothing else. The logic is in ``ext/_codec.pyx`` (compiled to `mcumgrx._codec`) and in
`mcumgrx._pycodec`. ``MCUMGRX_PURE_PYTHON=1`` in the environment forces the reference.

`IMPLEMENTATION` is ``"compiled"`` or ``"python"``; `FALLBACK_REASON` says why it is the reference, and is empty when
it is not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

IMPLEMENTATION: Literal["compiled", "python"]
FALLBACK_REASON: str

if TYPE_CHECKING:  # its types are those of both
    from mcumgrx._pycodec import HEADER_SIZE as HEADER_SIZE
    from mcumgrx._pycodec import ConsoleDecoder as ConsoleDecoder
    from mcumgrx._pycodec import Reassembler as Reassembler
    from mcumgrx._pycodec import build_console_frame as build_console_frame
    from mcumgrx._pycodec import build_message as build_message
    from mcumgrx._pycodec import build_upload as build_upload
    from mcumgrx._pycodec import decode_item as decode_item
    from mcumgrx._pycodec import pack_header as pack_header
    from mcumgrx._pycodec import read_upload_offset as read_upload_offset
    from mcumgrx._pycodec import split_messages as split_messages
    from mcumgrx._pycodec import unpack_header as unpack_header
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
    __all__ = ["IMPLEMENTATION", "FALLBACK_REASON", *_chosen.__all__]
    globals().update((name, getattr(_chosen, name)) for name in _chosen.__all__)
