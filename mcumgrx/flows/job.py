"""One update under way: what goes where, what the device has said last, and what has been done so far.

The steps (`steps`, `proof`) share it; what they ask of the device goes over `link`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..contracts import Connection, Device, ImageGroup
from ..errors import FlowError
from ..events import Bytes, Note, Progress, Speed, Stage, StageName
from ..mcuboot import Image
from ..messages.standard import ImageState, Slot
from ..pause import Pause
from .link import DeviceLink, now
from .policy import DfuPolicy
from .report import StepDone
from .verdict import Target, Verdict, verdict

__all__ = ["Job", "Running", "Sent"]


@dataclass(slots=True)
class Running:
    """A stage in progress; `result` is told at its end."""

    result: str = "done"


@dataclass(slots=True)
class Sent:
    """What uploads have brought through, over all links."""

    bytes: int = 0
    elapsed_s: float = 0.0
    speed: Speed | None = None

    def add(self, last: Bytes | None) -> None:
        if last is not None:
            self.bytes += max(0, last.done - last.resumed_from)
            self.elapsed_s += last.elapsed_s
            self.speed = last.speed


class Job:
    """See the module.

    Attributes:
        listed: the last image list, as long as nothing can have changed since.
        before: the last one before the reset.
        old: what ran at the beginning.
        session: what the device is to know the upload by; None for the file's own hash.
    """

    def __init__(
        self, device: Device, image: Image, policy: DfuPolicy, progress: Progress, pause: Pause | None
    ) -> None:
        self.device = device
        self.policy = policy
        self.progress = progress
        self.pause = pause
        self.link = DeviceLink(device, policy, progress)
        self.target = Target(image, policy.image)
        self.listed: ImageState | None = None
        self.before = ImageState(())
        self.old: Slot | None = None
        self.session: bytes | None = None
        self.done: list[StepDone] = []
        self.resets = 0
        self.sent = Sent()

    @property
    def image(self) -> Image:
        """What is sent."""
        return self.target.image

    @property
    def new(self) -> str:
        """Its version."""
        return self.target.version

    @property
    def confirmed(self) -> bool:
        """Whether the new image runs for good, by the last list."""
        return self.target.confirmed(self.listed)

    async def list(self) -> ImageState:
        """The image list, asked for if it may have changed."""
        if self.listed is None:
            self.listed = await self.link.run(_image_list)
        return self.listed

    def verdict(self, images: ImageState) -> Verdict:
        """What this list means, after the reset."""
        return verdict(self.target, self.before, images, self.old)

    def failed(self, images: ImageState) -> FlowError:
        """By this list the new image does not run."""
        told = self.verdict(images)
        return FlowError(told.text, stage=StageName.PROVE, outcome=told.outcome, slot=told.slot, hint=told.hint)

    @contextmanager
    def stage(self, name: StageName, text: str) -> Iterator[Running]:
        """Tell that a stage begins, and, unless it fails, how it ended."""
        begin = now()
        running = Running()
        self.progress(Stage(name, text))
        yield running
        elapsed_s = now() - begin
        self.done.append(StepDone(name.value, running.result, elapsed_s))
        self.progress(Stage(name, running.result, finished=True, elapsed_s=elapsed_s))

    def note(self, text: str, *, warning: bool = False) -> None:
        self.progress(Note(text, warning=warning))


async def _image_list(connection: Connection) -> ImageState:
    return await connection.group(ImageGroup).state()
