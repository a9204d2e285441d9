"""The command `west mcumgrx`: runs mcumgrx; `dfu` takes what `west build` has made."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from west.commands import WestCommand


class Mcumgrx(WestCommand):
    """See the module."""

    def __init__(self):
        super().__init__(
            "mcumgrx",
            "update and manage a device over SMP (MCUmgr)",
            "west mcumgrx dfu -d ADDRESS updates a device with what west build has made, and proves that it runs.\n"
            "All other commands and options are those of mcumgrx: see mcumgrx --help, mcumgrx dfu --help.",
            accepts_unknown_args=True,
            requires_workspace=False,
        )

    def do_add_parser(self, parser_adder):
        parser = parser_adder.add_parser(self.name, help=self.help, description=self.description)
        parser.add_argument("--build-dir", help="for dfu: the build directory [default: this one, or build in it]")
        parser.add_argument("command", help="dfu, or any other command of mcumgrx")
        return parser

    def do_run(self, args, unknown):
        if importlib.util.find_spec("mcumgrx") is None:
            self.die(f"mcumgrx is not installed for the Python of west: {sys.executable} -m pip install mcumgrx")
        words = [args.command]
        if args.command == "dfu":
            words.append(str(self._build_dir(args.build_dir)))
        elif args.build_dir:
            self.die("--build-dir is for the command dfu")
        process = subprocess.Popen([sys.executable, "-m", "mcumgrx", *words, *unknown])
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue  # it has got the signal as well, and leaves the device in order
        sys.exit(code)

    def _build_dir(self, named):
        found = Path(named or (os.curdir if Path("CMakeCache.txt").is_file() else "build"))
        if not found.is_dir():
            self.die(f"there is no build directory {found}: run west build, or name it with --build-dir")
        return found
