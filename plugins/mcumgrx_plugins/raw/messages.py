"""A request of any group and command, and its answer as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from mcumgrx.plugin_api import Body, Command, Fields, MalformedReply, Op, Reply
from mcumgrx.protocol.message import raise_for_error
from mcumgrx.protocol.standard import ERROR_TABLES

__all__ = ["RawCommand"]


@dataclass(frozen=True, slots=True)
class RawCommand(Command[object]):
    """Any request. The result is the decoded answer, whatever it holds: keys that are no text, or no map at all.

    Reads are taken for repeatable, which they are in every group that is known; writes are sent once.
    """

    # In other commands these are the same for all requests.
    group: int  # type: ignore[misc]
    command: int  # type: ignore[misc]
    op: Op = Op.READ  # type: ignore[misc]
    values: Body = field(default_factory=dict)
    what: ClassVar[str] = "request"

    @property
    def repeatable(self) -> bool:  # type: ignore[override]
        return self.op is Op.READ

    def body(self) -> Body:
        return self.values

    def parse(self, fields: Fields) -> object:
        return fields.extra()

    def result(self, reply: Reply) -> object:
        if not reply.payload:
            return {}
        try:
            value = reply.value()
        except MalformedReply as error:
            error.concerns(self.what, reply.payload)
            raise
        if isinstance(value, dict):
            texts = {key: item for key, item in value.items() if isinstance(key, str)}
            raise_for_error(texts, group=self.group, command=self.command, what=self.what, tables=ERROR_TABLES)
        return value
