"""A kind of link of one's own: a bridge to a radio, which takes each message in a UDP datagram. `acme:HOST:PORT`"""

import asyncio
from collections.abc import Sequence

from mcumgrx.plugin_api import Address, ConnectFailed, DatagramFraming, Flow, Limits, LinkLost, OptionReader, Transport


class AcmeTransport(Transport, asyncio.DatagramProtocol):
    limits = Limits(safe_message=256, max_message=1472)
    flow = Flow.network()

    def __init__(self, address: Address) -> None:
        self._where = address.endpoint(1337)
        OptionReader(address).finish()  # it has no options
        self._link: asyncio.DatagramTransport | None = None

    async def open(self, timeout_s: float) -> None:
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: the end
        try:
            connecting = asyncio.get_running_loop().create_datagram_endpoint(lambda: self, remote_addr=self._where)
            self._link, _ = await connecting
        except OSError as error:
            raise ConnectFailed(f"the bridge cannot be reached: {error}", hint="check its address") from error

    async def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
            self._arrived.put_nowait(None)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._arrived.put_nowait(data)

    async def send(self, writes: Sequence[bytes]) -> None:
        if self._link is None:
            raise LinkLost("the bridge was left")
        self._link.sendto(b"".join(writes))

    async def receive(self) -> bytes:
        if self._link is None or (data := await self._arrived.get()) is None:
            raise LinkLost("the bridge was left")
        return data

    def framing(self) -> DatagramFraming:
        return DatagramFraming()
