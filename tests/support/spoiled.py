"""A simulated device whose firmware does what it is asked, and answers nonsense: bodies cut off, empty, or others'."""

from __future__ import annotations

from collections.abc import Callable

from mcumgrx.sim.device import Answer, SimulatedDevice

__all__ = ["BODIES", "spoil"]

BODIES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda body: body[: len(body) * 2 // 3],
    "no body": lambda body: b"",
    "an empty map": lambda body: b"\xbf\xff",
    "no map": lambda body: b"\x83\x01\x02\x03",
    "noise": lambda body: b"\xff" * len(body),
    "no room": lambda body: b"\xbf\x62rc\x07\xff",
}


def spoil(device: SimulatedDevice, select: Callable[[int, bytes], bool], body: Callable[[bytes], bytes | None]) -> None:
    """Answer the requests that `select` chooses with what `body` makes of the true answer's body; None for silence."""

    def handle(message: bytes, now: float) -> Answer:
        answer = SimulatedDevice.handle(device, message, now)
        if not select(0, message):
            return answer
        replies = []
        for reply in answer.replies:
            if (other := body(reply[8:])) is not None:
                replies.append(reply[:2] + len(other).to_bytes(2, "big") + reply[4:8] + other)
        return answer._replace(replies=tuple(replies))

    device.handle = handle  # type: ignore[method-assign]
