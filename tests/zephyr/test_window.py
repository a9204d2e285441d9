"""As many requests on their way as link and server take: the window that transfers choose by themselves, unpaced.

Images go to emulated boards and are found in the image list afterwards. The `native_sim` servers take no images; they
get echoes through the same engine, a transfer of many requests of the largest size that arrives.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.bulk import transfer, window_for
from mcumgrx.client import Client
from mcumgrx.contracts import ImageGroup
from mcumgrx.errors import DeviceError
from mcumgrx.events import Bytes, Event, StageName
from mcumgrx.mcuboot import load_image
from mcumgrx.message_size import find_message_size
from mcumgrx.messages.message import SmpCommand
from mcumgrx.messages.standard import Echo, ReadImageState
from mcumgrx.registry import default_registry

from ..support.zephyr import ZephyrServer, find_server

pytestmark = pytest.mark.timeout(180)


class Piece:
    """One echo."""

    slow = False

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.text = f"{number:05d}".ljust(size, "x")
        self.command: SmpCommand[str] = Echo(self.text)


class Echoes:
    """A transfer plan of so many echoes, each answered with its own text. What is lost is asked again.

    Attributes:
        most_unanswered: the most that were on their way at once, as far as is known.
    """

    resumed_from = 0
    least_bytes = 64
    tail = False
    needs_settling = False

    def __init__(self, count: int, message_bytes: int) -> None:
        self.size = count
        self.done_bytes = 0
        self.message_bytes = message_bytes
        self.retransmissions = 0
        self.setbacks = self.stalls = 0
        self.most_unanswered = 0
        self._out: set[Piece] = set()
        self._numbers = deque(range(count))
        self._missing = set(range(count))

    @property
    def done(self) -> bool:
        return self.done_bytes == self.size

    def doubt(self) -> None:
        pass

    def next(self) -> Piece | None:
        while self._numbers and self._numbers[0] not in self._missing:
            self._numbers.popleft()  # its answer came late
        if not self._numbers:
            return None
        # Its answer is a byte longer, and has to fit as well.
        piece = Piece(self._numbers.popleft(), self.message_bytes - Echo("").request().size - 4)
        self._out.add(piece)
        self.most_unanswered = max(self.most_unanswered, len(self._out))
        return piece

    def answered(self, piece: Piece, result: Any) -> None:
        assert result == piece.text
        self._out.discard(piece)
        self._missing.discard(piece.number)
        self.done_bytes = self.size - len(self._missing)

    def refused(self, piece: Piece, error: DeviceError) -> bool:
        return False

    def overtaken(self, piece: Piece) -> None:
        self.setbacks += 1
        self.lost(piece)

    def lost(self, piece: Piece) -> None:
        if piece in self._out:
            self._out.remove(piece)
            self._numbers.appendleft(piece.number)
            self.retransmissions += 1


def client_of(server: ZephyrServer, **options: str) -> Client:
    registry = default_registry()
    address = Address.parse(server.address)
    transport = registry.transport(Address(address.scheme, address.target, dict(address.options) | options))
    return Client(transport, groups=registry.group, timeout_s=2)


@pytest.mark.parametrize(
    ("config", "line", "widest"),
    [
        ("serial", None, 3),
        ("serial_bigrx", None, 3),
        ("serial_bigrx", "511", 3),
        ("serial_noparams", None, 1),
        ("serial_buf96", None, 3),
        ("serial_buf256", "511", 3),
        ("serial_buf1024", None, 3),
        ("serial_buf2048", "511", 3),
        ("serial_line512", "511", 3),
        ("serial_raw", None, 1),
        ("shell", None, 2),
    ],
)
async def test_echoes(config: str, line: str | None, widest: int, tmp_path: Path) -> None:
    files = find_server(config)
    async with files.start(tmp_path) as server, client_of(server, **({"line": line} if line else {})) as client:
        await client.request(Echo("hello"))
        for _ in range(2):
            params = await client.params()
            largest = client.limits.message(params.buf_size if params is not None else None)
            plan = Echoes(100, await find_message_size(client, largest, Echoes.least_bytes))
            window = window_for(client)
            assert window.widest == widest
            await transfer(client, plan, window, slow_s=lambda _: 5.0, stage=StageName.UPLOAD)
            assert plan.done
            assert 1 <= plan.most_unanswered <= widest
            assert await client.request(Echo("and on")) == "and on"


@pytest.mark.parametrize(
    ("target", "config"),
    [
        ("mps2_an385", "serial_recovery"),
        ("mps2_an385", "serial_recovery_raw"),
        ("mps2_an385", "serial_recovery_buf400"),
        ("mps2_an385", "serial_recovery_buf512"),
        ("mps2_an385", "serial_recovery_buf1024"),
        ("mps2_an385", "serial_recovery_buf2048"),
        ("qemu_cortex_m0", "serial"),
    ],
)
async def test_images(target: str, config: str, tmp_path: Path) -> None:
    files = find_server(config, target)
    image = load_image(files.signed_image)
    async with files.start(tmp_path) as server, client_of(server) as client:
        for _ in range(2):
            steps: list[Event] = []
            done = await client.group(ImageGroup).upload(image, progress=steps.append)
            assert done.offset == image.size
            slots = (await client.request(ReadImageState())).slots
            assert image.hash in [slot.hash for slot in slots if not slot.active]
            last = [step for step in steps if isinstance(step, Bytes)][-1]
            assert last.speed is not None
            assert 1 <= last.speed.window <= (1 if "raw" in config else 3)
