"""Uploads with random faults over the emulated BlueZ. The suite does a few; here it is done by the thousand:

    python -m tests.ble.faults --count 1000 --seed 1

Each trial has a seed of its own, its number counted from `--seed` on, and a device of its own. What fails is told with
the command that repeats it; its faults are the same then, though not to the microsecond.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from unittest.mock import patch

from mcumgrx.contracts import ImageGroup, UploadOptions
from mcumgrx.errors import LinkLost, MalformedReply, MessageTooLarge, RequestTimeout
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import Echo
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults
from mcumgrx.transfer import headway

from .bluez import Daemon, EmulatedBluez, Peripheral, quick
from .rig import ble, connected, peripheral, simulated

KINDS = (
    *("drop_requests", "drop_replies", "duplicate_requests", "duplicate_replies", "delay_requests", "delay_replies"),
    *("cut_at_request", "cut_at_reply", "cut_at_write", "full_at_writes", "lose_notifications"),
)

# A trial takes a tenth of a second to some seconds.
_HANG_S = 40.0

# As often may an upload be begun anew, with at most three faults.
_ATTEMPTS = 5


@dataclass
class Tally:
    """What has been done so far."""

    trials: int = 0
    again: int = 0  # uploads that had to go on over a new link, or after silence
    faults: Counter[str] = field(default_factory=Counter)


class TrialFailed(AssertionError):
    """What happened, and how to see it again."""

    def __init__(self, seed: int, what: str) -> None:
        super().__init__(f"{what}\nagain: python -m tests.ble.faults --seed {seed} --count 1")


@contextmanager
def _impatient() -> Iterator[None]:
    """For the answer to its last chunk an upload waits long, because a device may check the image first."""
    with patch.object(headway, "_TAIL_S", 0.3):
        yield


def _misfortune(rig: Peripheral, random: Random) -> list[str]:
    """Up to three faults, somewhere in the first dozen of messages, writes or notifications."""
    faults = rig.faults = Faults()
    rig.cut_at_write = None
    rig.full_at_writes = set()
    rig.lose_notifications = set()
    chosen = []
    for _ in range(random.randint(1, 3)):
        kind, position = random.choice(KINDS), random.randint(1, 12)
        chosen.append(f"{kind} {position}")
        match kind:
            case "cut_at_write":
                rig.cut_at_write = len(rig.writes) + 2 * position
            case "full_at_writes":
                rig.full_at_writes.add(len(rig.writes) + 2 * position)
            case "lose_notifications":
                rig.lose_notifications.add(rig.notifications + position)
            case "delay_requests" | "delay_replies":
                setattr(faults, kind, {**getattr(faults, kind), position: random.uniform(0, 0.4)})
            case _:
                setattr(faults, kind, {*getattr(faults, kind), position})
    return chosen


def _to_be_expected(error: Exception, rig: Peripheral) -> bool:
    if isinstance(error, MalformedReply):  # the rest of an answer was lost, and the next one taken for it
        return bool(rig.lose_notifications)
    if isinstance(error, MessageTooLarge):  # the buffers were not heard of, so that messages must fit one write
        return rig.model.write_bytes == 62
    return True


async def _trial(bluez: EmulatedBluez, rig: Peripheral, seed: int, tally: Tally) -> list[str]:
    random = Random(seed)
    rig.device = simulated()
    rig.model = quick(random.choice((65, 247, 498)))
    chosen = _misfortune(rig, random)
    if random.random() < 0.2:
        bluez.forget(rig)
    image = parse_image(build_image("1.1.0", payload_size=random.randrange(2000, 4500)))
    options = UploadOptions(erase_timeout_s=0.3, window=random.randint(1, 3))
    transport = ble()
    text = f"{seed} " + "".join(random.choices("abc\x00\x01\x60", k=random.randrange(1, 500)))
    for attempt in range(_ATTEMPTS):
        try:
            async with connected(transport, 0.1) as client:
                assert await client.request(Echo(text), repeats=5) == text
                await client.group(ImageGroup).upload(image, options)
            break
        except (LinkLost, RequestTimeout, MalformedReply, MessageTooLarge) as error:
            if attempt == _ATTEMPTS - 1 or not _to_be_expected(error, rig):
                raise
            tally.again += 1
    slot = rig.device.bootloader.slots[1]
    assert rig.device.flash.read(slot.offset, image.size) == image.data, "uploaded, they say"
    return [fault.partition(" ")[0] for fault in chosen]


async def endure(bluez: EmulatedBluez, rig: Peripheral, seed: int, tally: Tally) -> None:
    """One trial, and nothing of it left behind. Raises `TrialFailed`."""
    tasks, connections = len(asyncio.all_tasks()), await bluez.connections()
    try:
        async with asyncio.timeout(_HANG_S):
            with _impatient():
                tally.faults.update(await _trial(bluez, rig, seed, tally))
    except Exception as error:
        raise TrialFailed(seed, f"{type(error).__name__}: {error}") from error
    try:
        async with asyncio.timeout(50):  # the emulation has tasks of its own, which end by themselves
            while len(asyncio.all_tasks()) > tasks or await bluez.connections() > connections or rig.mtu:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
    except TimeoutError as error:
        raise TrialFailed(seed, "a task, a D-Bus connection or the link is left behind") from error
    tally.trials += 1


async def endure_all(daemon: Daemon, seeds: range, tally: Tally) -> list[TrialFailed]:
    """One trial for each seed; what failed."""
    rig = peripheral()
    failed = []
    async with EmulatedBluez(daemon, rig) as bluez:
        async with connected(ble()) as client:  # bleak's connection for its whole process
            await client.params()
        for seed in seeds:
            try:
                await endure(bluez, rig, seed, tally)
            except TrialFailed as error:
                failed.append(error)
                bluez.lose(rig)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ble.faults", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="how many trials (default: 1000)")
    parser.add_argument("--seed", type=int, default=None, help="of the first one (default: another each time)")
    arguments = parser.parse_args()
    seed = Random().randrange(2**32) if arguments.seed is None else arguments.seed
    if not Daemon.installed():
        sys.exit("error: dbus-daemon is not installed")
    daemon = Daemon()
    os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = daemon.address
    tally = Tally()
    begin = time.monotonic()
    failed = asyncio.run(endure_all(daemon, range(seed, seed + arguments.count), tally))
    daemon.close()
    took_s = time.monotonic() - begin
    for error in failed:
        sys.stdout.write(f"{error}\n")
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(tally.faults.items()))
    sys.stdout.write(
        f"{tally.trials} of {arguments.count} uploads passed from seed {seed} on, in {took_s:.0f} s; "
        f"{tally.again} times one had to go on anew\n{kinds}\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
