"""`mcumgrx sim serve` in a process of its own, for as long as a `with` block."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Served:
    """A running server: where it listens, by scheme, and after the block what it has printed last."""

    process: subprocess.Popen[str]
    addresses: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    errors: str = ""

    def target(self, scheme: str) -> str:
        """The address without its scheme: `127.0.0.1:40001`, `/dev/pts/3`."""
        return self.addresses[scheme].partition(":")[2]

    @property
    def result(self) -> Any:
        return self.events[-1]["result"]


@contextmanager
def serving(*arguments: str, wanted: int = 1) -> Iterator[Served]:
    """Start `mcumgrx sim serve` with these arguments; it listens on `wanted` links when the block begins.

    At the end it gets a Ctrl-C, and must have ended well.
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "mcumgrx", "sim", "serve", *arguments, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUTF8": "1"},
        encoding="utf-8",
    )
    assert process.stdout is not None
    served = Served(process)
    try:
        while len(served.addresses) < wanted:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the server has ended: {served.events} {process.communicate()[1]}")
            event = json.loads(line)
            served.events.append(event)
            if event.get("event") == "listening":
                served.addresses[event["address"].partition(":")[0]] = event["address"]
        yield served
        process.send_signal(signal.SIGINT)
        out, served.errors = process.communicate(timeout=150)
        served.events += [json.loads(line) for line in out.splitlines()]
        assert process.returncode == 0, (process.returncode, served.events, served.errors)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
