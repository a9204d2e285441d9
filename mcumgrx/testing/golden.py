"""Reads recorded exchanges with real servers: JSON Lines, one row per request, in the order they happened.

A row holds whole SMP messages without the link's framing. What a file says of a server, and which rows depend on
earlier ones, is told beside the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from mcumgrx.errors import UsageError
from mcumgrx.protocol.header import Header

__all__ = ["Burst", "Exchange", "Raw", "Row", "read_rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """What all rows have: a `name`, and how it was recorded."""

    name: str
    _: KW_ONLY
    config: str = ""
    transport: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange(Row):
    """One request and its answer, or None where nothing came back.

    `request_body` and `response_body` are the decoded CBOR with byte strings as bytes; None where there is no payload
    or it was made undecodable on purpose. `wire_request` and `wire_response` are the framed bytes, where recorded.
    """

    request: bytes
    response: bytes | None
    request_body: Any = None
    response_body: Any = None
    wire_request: bytes | None = None
    wire_response: bytes | None = None

    @property
    def header(self) -> Header:
        """The request's header."""
        return Header.unpack(self.request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst(Row):
    """Requests written back to back, and the answers in the order they arrived; those missing were never sent."""

    requests: tuple[bytes, ...]
    responses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw(Row):
    """Bytes written to a line, and everything that came back; `responses` are the SMP messages found in it."""

    wire_request: bytes
    wire_response: bytes
    responses: tuple[bytes, ...] = ()


def read_rows(path: Path | str) -> list[Row]:
    """All rows of a file. Raises `UsageError` for a line that is none of the forms above."""
    rows: list[Row] = []
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                rows.append(_row(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{path}, line {number}: not a recorded exchange ({error!r})") from error
    return rows


def _row(row: Mapping[str, Any]) -> Row:
    common = {"name": row["name"], "config": row.get("config", "")}
    common |= {"transport": row.get("transport", ""), "note": row.get("note", "")}
    if "request_hex" in row:
        return Exchange(
            request=bytes.fromhex(row["request_hex"]),
            response=_bytes(row["response_hex"]),
            request_body=_body(row.get("request")),
            response_body=_body(row.get("response")),
            wire_request=_bytes(row.get("wire_request")),
            wire_response=_bytes(row.get("wire_response")),
            **common,
        )
    if "requests" in row:
        return Burst(requests=_packets(row["requests"]), responses=_packets(row["responses"]), **common)
    return Raw(
        wire_request=bytes.fromhex(row["wire_request"]),
        wire_response=bytes.fromhex(row["wire_response"]),
        responses=_packets(row.get("responses", ())),
        **common,
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def _packets(packets: Any) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(packet["hex"]) for packet in packets)


def _body(packet: Mapping[str, Any] | None) -> Any:
    return None if packet is None else _value(packet.get("body"))


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$hex"}:
            return bytes.fromhex(value["$hex"])
        if set(value) == {"__undecodable__"}:
            return None
        return {key: _value(item) for key, item in value.items()}
    return [_value(item) for item in value] if isinstance(value, list) else value
