"""Update a device: python dfu_script.py FILE ADDRESS"""

import asyncio
import sys

import mcumgrx
from mcumgrx.flows import update


async def main(file: str, address: str) -> None:
    report = await update(mcumgrx.device(address), mcumgrx.load_image(file))
    print(report.summary)


asyncio.run(main(*sys.argv[1:]))
