"""One upload to a served device, and what a chunk of it cost: `python _chunks.py ADDRESS BYTES`. Used by `cpu.py`.

It uses nothing but what every version of mcumgrx has, so that an older checkout can be measured in the same way.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import mcumgrx
from mcumgrx.contracts import ImageGroup
from mcumgrx.events import Bytes, Event
from mcumgrx.mcuboot import parse_image
from mcumgrx.sim.images import build_image


async def cost(address: str, size: int) -> dict[str, object]:
    image = parse_image(build_image("1.1.0", payload_size=size))
    chunk_bytes = 1

    def note(event: Event) -> None:
        nonlocal chunk_bytes
        if isinstance(event, Bytes) and event.speed is not None:
            chunk_bytes = max(chunk_bytes, event.speed.chunk_bytes)

    async with mcumgrx.connect(address) as client:
        # What is imported and made at first use.
        await client.group(ImageGroup).upload(parse_image(build_image("1.1.0", payload_size=50_000)))
        begin = time.process_time()
        await client.group(ImageGroup).upload(image, progress=note)
        seconds = time.process_time() - begin
    return {"us": 1e6 * seconds * chunk_bytes / image.size, "chunk_bytes": chunk_bytes, "from": mcumgrx.__file__}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(cost(sys.argv[1], int(sys.argv[2])))))
