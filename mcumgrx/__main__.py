"""``python -m mcumgrx``: the command line, the same as the installed command ``mcumgrx``."""

from __future__ import annotations

import sys

from mcumgrx.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
