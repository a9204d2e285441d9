"""Every exception that `mcumgrx` raises on purpose.

::

    McumgrError
    ├─ UsageError           an address or argument that cannot mean anything
    ├─ TransportError       the link
    │  ├─ DeviceNotFound    nothing answers to that name
    │  ├─ ConnectFailed     it is there, but the link cannot be opened
    │  │  └─ WrongDevice    another device is there now
    │  └─ LinkLost          an open link has ended
    ├─ ProtocolError        bytes that make no sense
    │  ├─ MalformedReply    the device's answer breaks the protocol
    │  ├─ FramingError      the bytes on the link break the framing
    │  ├─ MessageTooLarge   our message does not fit the device or the link
    │  └─ TransferStuck     a bulk transfer that no longer advances
    ├─ RequestTimeout       no answer in time (also a `TimeoutError`)
    ├─ DeviceError          the device said no: group, rc, name, rsn
    ├─ NotDone              the device said yes, and a look at it says that it was not done
    ├─ UploadMismatch       the device took the whole image, and says that what it holds is not what was sent
    ├─ ImageError           the file is not what the device can take
    ├─ FlowError            an update that ended other than asked
    │  └─ PlanRefused       it was not even started, and why
    └─ PluginError          a plugin is missing, broken or in conflict

Each carries fields, not only a text, a `hint` where the user can do something about it, and the exit code (`exit`) of
a command that ends with it. Plugins derive errors of their own from these. Exceptions of other libraries are
translated into these once, at the edge where they arise.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Self

# Of an answer that makes no sense, in a hint.
_SHOWN_BYTES = 24


class Exit(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    BUG = 1
    USAGE = 2
    NO_LINK = 3  # no such device, or no link to it
    NO_ANSWER = 4  # no answer, or no sensible one
    DEVICE_REFUSED = 5
    BAD_FILE = 6
    REVERTED = 7  # the device went back to its old image, or never took the new one
    PLUGIN = 8
    UNPROVEN = 9  # it is not known that the new image runs for good
    UNHEALTHY = 10
    PLAN_REFUSED = 11
    FLEET = 12  # some of several devices failed
    REMOTE_FAILED = 13  # a command that ran on the device failed
    OUTPUT_LOST = 14  # it was done, but its result could not be written
    FAILED = 15  # for a reason that a plugin's own error tells
    INTERRUPTED = 130

    @property
    def label(self) -> str:
        """As in `--json`: `device-refused`."""
        return self.name.lower().replace("_", "-")


class ErrorCode(IntEnum):
    """Base of the tables of error codes: a number, a sentence, and what the user can do.

    ::

        class AcmeError(ErrorCode):
            TOO_HOT = 3, "the heater is too hot", "wait until it has cooled down"
    """

    sentence: str
    hint: str | None

    def __new__(cls, number: int, sentence: str = "", hint: str | None = None) -> Self:
        member = int.__new__(cls, number)
        member._value_ = number
        member.sentence = sentence
        member.hint = hint
        return member

    @classmethod
    def find(cls, number: int) -> Self | None:
        """The member for `number`, or None for a code that this table does not know."""
        try:
            return cls(number)
        except ValueError:
            return None


class McumgrError(Exception):
    """Base of all errors of this package.

    `message` is one sentence without a full stop; `hint` says what the user can do, or is None.

    A plugin derives its own from it, or from the class below that fits, and can give it an exit code of its own: a
    member of `Exit`, or a number from 64 to 113, which mcumgrx leaves to plugins::

        class SelfTestFailed(McumgrError):
            exit = 64

    Attributes:
        exit: the exit code of a command that ends so.
        may_be_done: the request that ended so changes the device, was sent, and may have been carried out although it
            brought no answer that says so: the answer stayed out, could not be read, or did not fit the device's
            buffer. It is not known to have failed: read the state, and go on from that.
    """

    exit: int = Exit.FAILED
    may_be_done = False
    message = ""
    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message or super().__str__()

    def __reduce__(self) -> tuple[object, ...]:
        # An exception is pickled by a call with its arguments, which those of errors with fields cannot answer.
        return _revived, (type(self), self.args), self.__dict__


def _revived(kind: type[McumgrError], arguments: tuple[object, ...]) -> McumgrError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments  # which those derived from `OSError` do not take before `__init__`
    return error


class UsageError(McumgrError, ValueError):
    """An address, option or argument that cannot be understood."""

    exit = Exit.USAGE


class TransportError(McumgrError):
    """The link to the device: `address` names it as the user did, where known."""

    exit = Exit.NO_LINK

    def __init__(self, message: str, *, address: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.address = address


class DeviceNotFound(TransportError):
    """No such port, name or address."""


class ConnectFailed(TransportError):
    """The device or port exists but the link could not be opened (busy, no permission, no SMP service, …)."""


class WrongDevice(ConnectFailed):
    """Where the device was another one is now: its identity is `found` and not `expected`."""

    def __init__(
        self, message: str, *, expected: str, found: str, address: str | None, hint: str | None = None
    ) -> None:
        super().__init__(message, address=address, hint=hint)
        self.expected = expected
        self.found = found


class LinkLost(TransportError):
    """An open link has ended: unplugged, out of range, reset, or closed."""


class ProtocolError(McumgrError):
    """Bytes that make no sense as SMP."""

    exit = Exit.NO_ANSWER


class MalformedReply(ProtocolError):
    """A reply whose header matched a request but whose body breaks the protocol; `payload` is that body.

    `what` names the request, as soon as that is known. Until then the message says what is wrong of "it", the reply.
    """

    def __init__(self, message: str, *, payload: bytes = b"", what: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.payload = payload
        self.what = what

    def concerns(self, what: str, payload: bytes) -> None:
        """Say which request it was that got this answer, what the device sent, and whose mistake that is."""
        if self.what is not None:
            return
        self.what = what
        self.payload = payload
        self.message = f"the device's answer to the {what} makes no sense: {self.message}"
        if self.hint is None:
            shown = payload[:_SHOWN_BYTES].hex(" ") + (" …" if len(payload) > _SHOWN_BYTES else "")
            came = f"{len(payload)} bytes: {shown}" if payload else "a header and no body"
            self.hint = f"that is a mistake of the device's firmware, which sent {came}"


class FramingError(ProtocolError):
    """Bytes on the link that break its framing, where skipping them silently is not right."""


class MessageTooLarge(ProtocolError):
    """A message of `size` bytes, header included, is larger than the `limit` of device and link."""

    exit = Exit.USAGE

    def __init__(self, message: str, *, size: int, limit: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.size = size
        self.limit = limit


class TransferStuck(ProtocolError):
    """A bulk transfer does not advance although the device answers: `offset` of `size` bytes are through."""

    def __init__(self, message: str, *, offset: int, size: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.offset = offset
        self.size = size


class RequestTimeout(McumgrError, TimeoutError):
    """No answer within `timeout_s` seconds, after `attempts` attempts, to the request `what`."""

    exit = Exit.NO_ANSWER

    def __init__(
        self, message: str, *, what: str, timeout_s: float, attempts: int = 1, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.what = what
        self.timeout_s = timeout_s
        self.attempts = attempts


class DeviceError(McumgrError):
    """The device answered, and its answer is no.

    `group` is the command group whose code `rc` is, or None where the code is one of the SMP layer itself (the plain
    `rc` form). Unknown codes are kept as they are, with `name` and `code` None. `rsn` is the device's own text, for
    people only. `reply` is the decoded body of the whole answer, because some errors carry a value beside them.

    Groups have codes of the same number that mean different things, so ask with `says`::

        if error.says(SmpError.BUSY): ...
    """

    exit = Exit.DEVICE_REFUSED

    def __init__(
        self,
        message: str,
        *,
        group: int | None,
        rc: int,
        code: ErrorCode | None = None,
        rsn: str | None = None,
        reply: dict[str, object] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.group = group
        self.rc = rc
        self.name = None if code is None else code.name
        self.rsn = rsn
        self.reply = reply if reply is not None else {}
        self._code = code

    @property
    def code(self) -> ErrorCode | None:
        """The member of the group's table of codes (`SmpError`, `ImageErrorCode`, …), or None for an unknown one."""
        return self._code

    def says(self, *codes: ErrorCode) -> bool:
        """Whether it is one of `codes`: the number, and the table that it belongs to."""
        return any(self._code is code for code in codes)


class NotDone(McumgrError):
    """The device did not say no, and what it was asked to do is not done, as a look at it afterwards shows."""

    exit = Exit.DEVICE_REFUSED


class UploadMismatch(McumgrError):
    """The device has taken all `size` bytes of an image, and by its own check what it holds is not what was sent."""

    exit = Exit.DEVICE_REFUSED

    def __init__(self, message: str, *, size: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.size = size


class ImageError(McumgrError):
    """The file is not an image that the device can take; `path` names it, where it came from a file."""

    exit = Exit.BAD_FILE

    def __init__(self, message: str, *, path: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class Outcome(Enum):
    """How an update that did not succeed has ended, as the device itself tells after its reset."""

    REVERTED = "reverted"  # the new image ran, was not confirmed, and the bootloader went back
    REJECTED = "rejected"  # the bootloader did not take the new image (signature, hash, downgrade, …)
    NEVER_SWAPPED = "never swapped"  # the old image runs and the new one still waits
    OTHER_IMAGE = "other image"  # something else runs
    MIXED = "mixed"  # of several images some run and others do not
    FROZEN = "frozen on trial"  # its trial outlasts the reset, because another image waits and cannot be installed
    NO_RETURN = "no return"  # the device has not answered since its reset
    UNSEEN = "unseen"  # the new image has left its slot, and the device shows nothing of what runs
    NOT_CONFIRMED = "not confirmed"  # the new image runs but could not be confirmed
    UNHEALTHY = "unhealthy"  # the new image runs but failed its health check

    @property
    def exit(self) -> Exit:
        """The exit code of a command that ends so."""
        if self in (Outcome.REVERTED, Outcome.REJECTED):
            return Exit.REVERTED
        return Exit.UNHEALTHY if self is Outcome.UNHEALTHY else Exit.UNPROVEN


class FlowError(McumgrError):
    """An update ended other than asked: in which `stage`, with which `outcome`, concerning which `slot`."""

    exit = Exit.UNPROVEN

    def __init__(
        self,
        message: str,
        *,
        stage: str,
        outcome: Outcome | None = None,
        slot: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.stage = stage
        self.outcome = outcome
        if outcome is not None:
            self.exit = outcome.exit
        self.slot = slot


class PlanRefused(FlowError):
    """The plan refuses the update before anything is touched; the message is the reason."""

    exit = Exit.PLAN_REFUSED

    def __init__(self, message: str, *, slot: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, stage="plan", slot=slot, hint=hint)


class PluginError(McumgrError):
    """A plugin is missing, broken or in conflict: its entry point `name` and its `distribution`, where known."""

    exit = Exit.PLUGIN

    def __init__(
        self, message: str, *, name: str | None = None, distribution: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.distribution = distribution


def system_says(error: BaseException) -> str:
    """What the operating system says, without its number; what an error says that is not the system's."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
