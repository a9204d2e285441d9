"""A request of any group and command, and its answer as it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from mcumgrx.plugin_api import Body, CommandFacts, Fields, MalformedReply, Op, Reply, SmpCommand, raise_for_error


@dataclass(frozen=True, slots=True)
class RawCommand(SmpCommand[object]):
    """Any request. The result is the decoded answer, whatever it holds: keys that are no text, or no map at all.

    Reads are taken for repeatable, which they are in every group that is known; writes are sent once.
    """

    group: int
    number: int
    op: Op = Op.READ
    values: Body = field(default_factory=dict)

    # In other commands these are the same for all requests.
    @property
    def facts(self) -> CommandFacts:  # type: ignore[override]
        reads = self.op is Op.READ
        return CommandFacts(self.group, self.number, self.op, repeatable=reads, changes=not reads)

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
            error.concerns(self.facts.what, reply.payload)
            raise
        if isinstance(value, dict):
            texts = {key: item for key, item in value.items() if isinstance(key, str)}
            raise_for_error(texts, group=self.group, number=self.number, what=self.facts.what)
        return value
