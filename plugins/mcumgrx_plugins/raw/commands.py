"""The command `mcumgrx raw`. Imports nothing heavy: help must stay quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcumgrx.plugin_api import Argument, CliContext, DeviceError, Note, Option, UsageError, cli_command

# Of SMP itself; plugins name more.
_GROUPS = {
    "os": 0,
    "image": 1,
    "stat": 2,
    "settings": 3,
    "log": 4,
    "crash": 5,
    "split": 6,
    "run": 7,
    "fs": 8,
    "shell": 9,
    "enum": 10,
    "transport": 11,
    "zephyr": 63,
}
_LARGEST_GROUP, _LARGEST_ID = 0xFFFF, 0xFF


@dataclass(frozen=True, slots=True)
class RawResult:
    """The device's answer as it is, and nothing that was looked at beside it.

    In JSON byte strings are `{"$hex": …}`, maps with other keys than text `{"$map": …}`.
    """

    group: int
    id: int
    reply: Any

    def lines(self) -> list[str]:
        import json

        return json.dumps(self.reply, indent=2, ensure_ascii=False, allow_nan=False).splitlines()


@cli_command(
    Argument("group", f"number from 0 to {_LARGEST_GROUP}, or a name: {', '.join(_GROUPS)}, or a plugin's"),
    Argument("id", f"number of the command in its group, 0 to {_LARGEST_ID}", type=int),
    Argument("body", "the request as a JSON object; default: an empty one", required=False),
    Option("--write", "Send it as a write. Without this it is a read.", type=bool, default=False),
    epilog="""
    mcumgrx raw os 6 -d serial:/dev/ttyACM0
    mcumgrx raw os 0 --write '{"d": "hello"}' -d serial:/dev/ttyACM0
    mcumgrx raw settings 0 --write '{"name": "app/led", "val": {"$hex": "01"}}' -d /dev/ttyACM0
    mcumgrx raw 64 1 '{"channel": 3}' -d serial:/dev/ttyACM0
    """,
)
async def raw(context: CliContext, group: str, id: int, body: str | None, write: bool) -> RawResult:
    """Send the command ID of any GROUP with the JSON object BODY, and print the answer as JSON.

    Byte strings are written as {"$hex": "00ff"}, in requests and in answers; maps with other keys than text as
    {"$map": [[1, "one"], [2, "two"]]}. A read without an answer is asked again, a write is sent once. An answer that
    says no is an error as with any other command.
    """
    from mcumgrx.plugin_api import Op, SmpError

    from .messages import RawCommand
    from .text import body_from_json, to_json

    number = _group(group, {**{one.name.lower(): one.id for one in context.groups.values()}, **_GROUPS})
    if not 0 <= id <= _LARGEST_ID:
        raise UsageError(f"{id} is no command", hint=f"they have numbers from 0 to {_LARGEST_ID}")
    values = {} if body is None else body_from_json(body)
    request = RawCommand(number, id, Op.WRITE if write else Op.READ, values)
    size = request.request().size
    async with context.connect() as client:
        if size > client.limits.safe_message:
            # With the device's buffers known, what does not fit is refused here, and not lost on the way.
            await client.params()
        try:
            reply = await client.request(request)
        except DeviceError as error:
            if error.says(SmpError.NOT_SUPPORTED):
                other = "without --write" if write else "with --write"
                error.hint = f"{error.hint}; a command can also exist for the other operation alone: try {other}"
            raise
    if write:
        context.progress(Note("this is what the device answered; what it has done was not looked at"))
    return RawResult(number, id, to_json(reply))


def _group(text: str, names: Mapping[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= _LARGEST_GROUP:
        raise UsageError(
            f"{text!r} is no command group", hint=f"use a number from 0 to {_LARGEST_GROUP}, or {', '.join(names)}"
        )
    return number
