"""One update under way: what goes where, what the device has said last, and what has been done so far.

The steps (`steps`, `proof`) share it; what they ask of the device goes over `link`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..contracts import Device
from ..errors import FlowError
from ..events import Bytes, Note, Progress, Speed, Stage, StageName, Status
from ..mcuboot import Image
from ..messages.standard import ImageState, Slot
from ..pause import Pause
from .link import DeviceLink, now
from .listing import image_list
from .policy import DfuPolicy
from .report import StepDone
from .verdict import Target, Verdict, in_words, verdict_of_all

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
        targets: what is brought, by the numbers of the images; what is there already has left it once there is a plan.
        old: what ran at the beginning, by the same numbers.
        loader: the device has a firmware loader, over which the update goes.
        upload_numbers: of images whose upload names another one than their own.
        sessions: what the device is to know uploads by; where there is none, by the file's own hash.
    """

    def __init__(
        self, device: Device, files: Mapping[int, Image], policy: DfuPolicy, progress: Progress, pause: Pause | None
    ) -> None:
        self.device = device
        self.policy = policy
        self.progress = progress
        self.pause = pause
        self.link = DeviceLink(device, policy, progress)
        self.targets = {number: Target(files[number], number, len(files) == 1) for number in sorted(files)}
        self.listed: ImageState | None = None
        self.before = ImageState(())
        self.old: dict[int, Slot | None] = {}
        self.loader = False
        self.upload_numbers: dict[int, int] = {}
        self.sessions: dict[int, bytes] = {}
        self.done: list[StepDone] = []
        self.resets = 0
        self._folded = False
        self.sent = Sent()

    @property
    def target(self) -> Target:
        """What is brought, where that is a single image; the first of several."""
        return next(iter(self.targets.values()))

    @property
    def new(self) -> str:
        """What is brought, in words."""
        return in_words(target.name for target in self.targets.values())

    @property
    def runs(self) -> str:
        """`1.1.0 runs`, `1.1.0 of image 0 and 2.1.0 of image 1 run`."""
        return f"{self.new} run{'s' if len(self.targets) == 1 else ''}"

    @property
    def does(self) -> str:
        return "does" if len(self.targets) == 1 else "do"

    def all_run(self, images: ImageState) -> bool:
        """Whether all that is brought runs by this list, as far as that is listed."""
        return all(target.running(images) is not None for target in self.targets.values() if target.listed)

    @property
    def confirmed(self) -> bool:
        """Whether all that is brought runs for good, by the last list, as far as that is listed."""
        return all(target.confirmed(self.listed) for target in self.targets.values() if target.listed)

    async def list(self) -> ImageState:
        """The image list, asked for if it may have changed."""
        if self.listed is None:
            self.listed = self.link.known(await self.link.run(image_list))
        return self.listed

    def verdict(self, images: ImageState) -> Verdict:
        """What this list means, after the reset."""
        return verdict_of_all([*self.targets.values()], self.before, images, self.old)

    def failed(self, images: ImageState) -> FlowError:
        """By this list the new image does not run."""
        told = self.verdict(images)
        return FlowError(told.text, stage=StageName.PROVE, outcome=told.outcome, slot=told.slot, hint=told.hint)

    @contextmanager
    def stage(self, name: StageName, text: str) -> Iterator[Running]:
        """Tell that a stage begins, and, unless it fails, how it ended. In a folded one only what goes on is told."""
        begin = now()
        running = Running()
        self.progress(Status(text) if self._folded else Stage(name, text))
        yield running
        elapsed_s = now() - begin
        self.done.append(StepDone(name.value, running.result, elapsed_s))
        if not self._folded:
            self.progress(Stage(name, running.result, finished=True, elapsed_s=elapsed_s))

    @contextmanager
    def folded(self, name: StageName, text: str) -> Iterator[Running]:
        """A stage of which those within are parts: in what is told they are one line."""
        with self.stage(name, text) as running:
            self._folded = True
            try:
                yield running
            finally:
                self._folded = False

    def note(self, text: str, *, warning: bool = False) -> None:
        self.progress(Note(text, warning=warning))
