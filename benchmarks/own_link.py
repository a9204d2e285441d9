"""Uploads over the transport of thirty lines that the pages show, beside those over the built-in one.

::

    python benchmarks/own_link.py [--quick] [--json]

`examples/radio_link.py` says of its link only that it is a network (`Flow.network`), and has neither `offer` nor
`deliver_to`; the transport of `udp:` has all that there is. Both upload the same image to a simulated device behind a
UDP socket of this process. Time is virtual, and the device holds every datagram for half of the delay, so the rates are
the same on every machine: they show what a link's word about itself does, not what its code costs (`requests.py` and
`peers.py` do). *unknown* is the same class with the default, `Flow()`. *share* is the rate of the thirty lines over
that of `udp:`; it is to be 95 %.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.mcuboot import Image, parse_image
from mcumgrx.plugin_api import Flow, Transport
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx_plugins.image.group import ImageGroup
from mcumgrx_plugins.udp.transport import UdpTransport

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "radio_link.py"
CONFIG = DeviceConfig(buf_size=2048, slot_size=4 * 1024 * 1024, timing=INSTANT)
BAR = 0.95
DELAYS_S = (0.01, 0.02, 0.1)


def own_transport() -> type[Transport]:
    spec = importlib.util.spec_from_file_location("radio_link", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind: type[Transport] = module.AcmeTransport
    return kind


class Served(asyncio.DatagramProtocol):
    """A simulated device behind a UDP socket."""

    def __init__(self, link: SimulatedTransport) -> None:
        self._link = link
        self._sender: Any = None
        link.lead_out(lambda data: self._socket.sendto(data, self._sender))

    def connection_made(self, transport: Any) -> None:
        self._socket = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._sender = addr
        self._link.put(data)


async def upload(kind: type[Transport], delay_s: float, image: Image) -> float:
    """Bytes per second, from the first request to the last answer."""
    loop = asyncio.get_running_loop()
    device = SimulatedDevice(CONFIG)
    device.install(build_image("1.0.0", payload_size=1000))
    device.settle()
    link = SimulatedTransport(device, LinkModel.datagram(latency_s=delay_s / 2))
    await link.open(1.0)
    served, _ = await loop.create_datagram_endpoint(lambda: Served(link), local_addr=("127.0.0.1", 0))
    port = served.get_extra_info("sockname")[1]
    try:
        async with Client(kind(Address("own", f"127.0.0.1:{port}"))) as client:
            await client.params()
            begin = loop.time()
            await client.group(ImageGroup).upload(image)
            return len(image.data) / (loop.time() - begin)
    finally:
        served.close()
        await link.close()


def measure(delay_s: float, size: int) -> dict[str, Any]:
    own = own_transport()
    unknown = type("Unknown", (own,), {"flow": Flow()})
    image = parse_image(build_image("1.1.0", payload_size=size))
    rates = {
        name: run(upload(kind, delay_s, image))
        for name, kind in {"udp": UdpTransport, "own": own, "unknown": unknown}.items()
    }
    return {"delay_ms": delay_s * 1000, **rates, "share": rates["own"] / rates["udp"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 ms only")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = [measure(delay_s, 1_000_000) for delay_s in ((0.02,) if given.quick else DELAYS_S)]
    if given.json:
        print(json.dumps({"results": rows}))
        return
    for row in rows:
        less = "" if row["share"] >= BAR else f", less than {BAR:.0%}"
        udp, own, unknown = (round(row[name] / 1000) for name in ("udp", "own", "unknown"))
        print(
            f"{row['delay_ms']:g} ms: udp {udp} KB/s, thirty lines {own} KB/s ({row['share']:.1%}{less}), "
            f"with Flow() {unknown} KB/s"
        )


if __name__ == "__main__":
    main()
