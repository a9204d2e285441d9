"""What an update did, as data: for the end of the command line's output, for `--json` and for scripts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..events import Speed
from .plan import Plan
from .verdict import in_words

__all__ = ["Ending", "Report", "StepDone"]


class Ending(StrEnum):
    """How an update that did not fail has ended. How one fails is `errors.Outcome`."""

    CONFIRMED = "confirmed"
    """The new image runs, proven, and stays."""
    ON_TRIAL = "on trial"
    """The new image runs, proven; the next reset goes back unless somebody confirms it."""
    ANSWERS = "answers"
    """The application answers and does not list what runs: it is the new image, because no other can run."""
    REPLACED = "bootloader replaced"
    """The new bootloader runs, by what the device tells."""
    UPLOADED = "uploaded"
    """The new image lies in the device and nothing more was asked for."""
    NOTHING_TO_DO = "nothing to do"
    """The device was already as wanted."""
    NOT_STARTED = "not started"
    """The plan was made and not carried out: a dry run, or somebody said no."""


@dataclass(frozen=True, slots=True)
class StepDone:
    """One stage that was gone through, with its result and how long it took."""

    name: str
    text: str
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """What happened.

    Attributes:
        address: the device as the user named it.
        identity: what tells it from all others, if the link knows.
        plan: what was to be done. Of several images `image`, `hash` and the versions are those of the first, and
            `plan.each` has all.
        bytes_sent: bytes of the file that came through in this run; those the device lost in a restart count twice.
        upload_s: seconds that the transfer took, without reconnecting.
        reconnects: how often a lost link was opened again.
        resets: how often the device was reset.
        elapsed_s: from the first connect to the end.
        speed: of the transfer, at its end; None when nothing was transferred. After a lost link, of its last part.
    """

    address: str
    identity: str | None
    ending: Ending
    plan: Plan
    steps: tuple[StepDone, ...] = ()
    bytes_sent: int = 0
    upload_s: float = 0.0
    reconnects: int = 0
    resets: int = 0
    elapsed_s: float = 0.0
    speed: Speed | None = None

    @property
    def image(self) -> int:
        """Number of the image (core)."""
        return self.plan.number

    @property
    def hash(self) -> str:
        """The image's hash, in hexadecimal."""
        return self.plan.hash

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(part.size for part in self.plan.each)

    @property
    def from_version(self) -> str | None:
        """What ran before."""
        return self.plan.from_version

    @property
    def to_version(self) -> str:
        """The file's version."""
        return self.plan.to_version

    @property
    def bytes_per_s(self) -> float | None:
        """Average rate of the transfer; None when nothing was transferred."""
        return self.bytes_sent / self.upload_s if self.bytes_sent and self.upload_s > 0 else None

    @property
    def summary(self) -> str:
        """One sentence for people."""
        if self.plan.parts:
            return self._summary_of_all
        new = self.to_version
        if self.ending is Ending.CONFIRMED:
            change = f" (was {self.from_version})" if self.from_version not in (None, new) else ""
            return f"{new} runs and is confirmed{change}"
        if self.ending is Ending.ON_TRIAL:
            return f"{new} runs on trial: the next reset goes back unless it is confirmed"
        if self.ending is Ending.ANSWERS:
            return f"{new} runs: the application answers, and its slot holds no other; it lists no images itself"
        if self.ending is Ending.REPLACED:
            return f"the bootloader {new} runs"
        if self.ending is Ending.UPLOADED:
            return f"{new} is in slot {self.plan.slot}"
        if self.ending is Ending.NOTHING_TO_DO:
            return self.plan.notes[0] if self.plan.notes else f"{new}: nothing to do"
        return f"nothing was changed: {len(self.plan.steps)} steps were planned"

    @property
    def what(self) -> str:
        """What was brought, in words: `1.1.0`, `1.1.0 of image 0 and 2.1.0 of image 1`."""
        if not self.plan.parts:
            return self.to_version
        return in_words(f"{part.to_version} of image {part.number}" for part in self.plan.each)

    @property
    def _summary_of_all(self) -> str:
        if self.ending is Ending.CONFIRMED:
            was = in_words(part.from_version for part in self.plan.each if part.from_version is not None)
            return f"{self.what} run and are confirmed{f' (were {was})' if was else ''}"
        if self.ending is Ending.ON_TRIAL:
            return f"{self.what} run on trial: the next reset goes back unless they are confirmed"
        if self.ending is Ending.UPLOADED:
            return f"{self.what} are in the device"
        if self.ending is Ending.NOTHING_TO_DO:
            return "; ".join(self.plan.notes) or f"{self.what}: nothing to do"
        return f"nothing was changed: {len(self.plan.texts)} steps were planned"

    def as_dict(self) -> dict[str, object]:
        """The report as JSON takes it."""
        return {
            "address": self.address,
            "identity": self.identity,
            "ending": self.ending.value,
            "summary": self.summary,
            "images": [
                {
                    "image": part.number,
                    "from_version": part.from_version,
                    "to_version": part.to_version,
                    "hash": part.hash,
                    "size": part.size,
                }
                for part in self.plan.each
            ],
            "image": self.image,
            "from_version": self.from_version,
            "to_version": self.to_version,
            "hash": self.hash,
            "size": self.size,
            "bytes_sent": self.bytes_sent,
            "upload_s": round(self.upload_s, 3),
            "bytes_per_s": None if self.bytes_per_s is None else round(self.bytes_per_s),
            "speed": None if self.speed is None else self.speed.as_dict(),
            "reconnects": self.reconnects,
            "resets": self.resets,
            "elapsed_s": round(self.elapsed_s, 3),
            "plan": self.plan.as_dict(),
            "steps": [
                {"name": step.name, "text": step.text, "elapsed_s": round(step.elapsed_s, 3)} for step in self.steps
            ],
        }
