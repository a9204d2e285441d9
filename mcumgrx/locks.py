"""Files that one process has at a time."""

from __future__ import annotations

import os
import sys

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
