"""Files that several processes use: one has them at a time, and nobody sees half of one."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Put a file with this text in the place of the one there. Its owner alone can read it, as mkstemp makes it."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


if sys.platform == "win32":
    import msvcrt

    # Nobody else can read there what is locked, so it is a byte far behind the end of any file.
    _PLACE = 0x7FFFFFF0

    def lock_file(descriptor: int) -> bool:
        """Lock an open file until it is closed; false where another process has it.

        True also where its file system knows no locks: nothing better is to be had there.
        """
        os.lseek(descriptor, _PLACE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def lock_file(descriptor: int) -> bool:
        """Lock an open file until it is closed; false where another process has it.

        True also where its file system knows no locks: nothing better is to be had there.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True
