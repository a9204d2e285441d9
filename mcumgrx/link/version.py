"""Which version of SMP to speak: 2, unless the device shows that it knows no other than 1.

Here: what answers and silences say about it. Not here: sending, repeating, time.

Servers before version 2 ignore the version bits and answer (Zephyr before 3.4), refuse the request with `rc` 13, or
leave it unanswered. Silence alone says little, because packets get lost: version 1 is spoken only when it has brought
an answer after version 2 had brought none several times. Any answer to version 2, however late, and a refusal of
version 1 (`rc` 12) turn back. In version 1 the groups' own error codes are lost, so a mistake here costs every later
error its meaning.
"""

from __future__ import annotations

from ..errors import MalformedReply
from ..messages.message import Reply
from ..protocol.codes import SmpError
from ..protocol.header import Version

# So often version 2 stays unanswered, by a device that answers version 1, before it is given up.
_SILENCES = 3


class VersionChoice:
    """The choice for one device on one connection.

    Attributes:
        current: the version to speak.
        certain: the device has answered in it, or has said so; nothing needs to be tried any more.
    """

    def __init__(self) -> None:
        self.current = Version.V2
        self.certain = False
        self._silences = 0
        self._old_answers = 0

    @property
    def answers(self) -> bool:
        """Whether the device has answered anything at all."""
        return self.certain or self._old_answers > 0

    @property
    def doubtful(self) -> bool:
        """Whether a request more in version 2 would tell: version 1 was answered, and version 2 was not so far."""
        return not self.certain and self.current is Version.V2 and self._silences > 0 and self._old_answers > 0

    def for_attempt(self, number: int, attempts: int) -> Version:
        """The version of the attempt `number`, from 0 on: the last one of several tries what the others did not."""
        if attempts == 1 and self.doubtful:
            return Version.V1  # which has been answered
        if self.certain or number == 0 or number < attempts - 1:
            return self.current
        return Version.V1 if self.current is Version.V2 else Version.V2

    def silent(self, version: int) -> None:
        """A request in `version` has got no answer in its time."""
        if version == Version.V2:
            self._silences += 1
            self._weigh()

    def answered(self, version: int, reply: Reply) -> None:
        """A request that was sent in `version` was answered, be it late."""
        if self.certain and version == self.current:
            # Only a refusal says more, and nobody decodes each answer twice to find one: see `refused`.
            return
        if version == Version.V2:
            if not _says(reply, SmpError.TOO_NEW):
                self.current, self.certain, self._silences = Version.V2, True, 0
        elif not _says(reply, SmpError.TOO_OLD):
            self._old_answers += 1
            self._weigh()

    def refused(self, version: int) -> None:
        """The device has said that it does not speak `version`."""
        self.current, self.certain = (Version.V1 if version == Version.V2 else Version.V2), True

    def _weigh(self) -> None:
        if not self.certain and self._old_answers and self._silences >= _SILENCES:
            self.current = Version.V1


def _says(reply: Reply, code: SmpError) -> bool:
    try:
        return reply.body().get("rc") == code
    except MalformedReply:
        return False
