"""What the user wants of an update, as data. What follows from it for one device is decided in `plan`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..contracts import HealthCheck, OutsideCheck
from ..errors import UsageError

__all__ = ["DfuPolicy", "InvalidPolicy", "Mode", "Unconfirmed"]


class Mode(StrEnum):
    """How far an update goes."""

    TEST_AND_CONFIRM = "test-and-confirm"
    """Boot the new image once, prove that it runs, then make it permanent: whatever fails, the old one comes back."""
    CONFIRM_ONLY = "confirm-only"
    """Make it permanent before it has ever run: there is no way back."""
    TEST_ONLY = "test-only"
    """Boot it once and prove that it runs; somebody else confirms it."""
    UPLOAD_ONLY = "upload-only"
    """Put it into the device, and no more."""


class Unconfirmed(StrEnum):
    """What becomes of a running image that is on trial, and is not the one that is to be installed."""

    REFUSE = "refuse"
    """Nothing is done: somebody may still be looking at it."""
    REVERT = "revert"
    """It is given up: a reset goes back to the old image first."""
    CONFIRM = "confirm"
    """It is kept: confirmed first, and the image before it is given up."""


class InvalidPolicy(UsageError):
    """A value that a policy cannot have: `field` is the name here, which the command line has another one for."""

    def __init__(self, field: str, requirement: str) -> None:
        super().__init__(f"{field} {requirement}")
        self.field = field
        self.requirement = requirement


@dataclass(frozen=True, slots=True)
class DfuPolicy:
    """How one update is done.

    Attributes:
        mode: how far it goes.
        image: number of the image (core) that the file is for.
        erase: erase the slot before the upload; devices do that themselves, so it is rarely needed.
        erase_timeout_s: for an erase, also the one that the first chunk causes.
        chunk_bytes: at most this many bytes of data in a chunk; None for what device and link take.
        window: at most this many chunks in flight; None for as many as device and link take.
        boot_timeout_s: from a reset until the application must have answered, swapping included.
        quiet_s: seconds of silence after a reset before the device is asked; None for what the link needs.
        upgrade_only: refuse a version that is not newer than the running one.
        grace_s: after a reset, how long an answer that shows nothing changed is taken for one of the application that
            is still on its way down. Zephyr waits 250 ms before it resets, some products up to 8 s.
        reconnects: how many times in a row a lost link is opened again without the transfer advancing meanwhile.
        trim: send a padded file without its padding, so that it is the mode that decides what becomes of it.
        if_unconfirmed: what becomes of a running image that is on trial.
        board: refuse a device that is another board than this one, or does not say which it is: a name of Zephyr's
            (`nrf52840dk`, or more exactly `nrf52840dk/nrf52840`).
        ensure_version: do nothing where the file's version runs for good, even if it is another build of it.
        allow_downgrade: an older version is wanted, so nobody has to be warned of it. Where the bootloader runs the
            newest image and takes marks, it is tried whether the mark outranks the version.
        soak_s: seconds that the new image has to stay up, without a restart, before it is checked and confirmed.
        checks: what else has to be in order before it is confirmed, one after the other.
        check_timeout_s: for each check.
        rollback: an image that is not healthy is not only left unconfirmed: the device is reset, and the old one
            proven to be back.
        package_boards: the boards that the package was built for, as pairs of an image's number and a name; what does
            not look like the device's board has to be agreed to.
        image_order: of several images the numbers of all, as they are uploaded and marked; empty for uploads that count
            up and marks that count down, the only order that is known to suit every bootloader.
        name_board: ask the device which board it is, so that the plan names it, though nothing depends on it.
        recovery: update through the bootloader's serial recovery, which writes the file over the application: the
            device is reset into it, or caught in it while it starts. Devices with a single slot know no other way.
        bootloader: what is brought is MCUboot itself, with a file for each of its two slots; it is asked from which of
            them it runs, and the other one is replaced.
    """

    mode: Mode = Mode.TEST_AND_CONFIRM
    image: int = 0
    erase: bool = False
    erase_timeout_s: float = 60.0
    chunk_bytes: int | None = None
    window: int | None = None
    boot_timeout_s: float = 120.0
    quiet_s: float | None = None
    upgrade_only: bool = False
    grace_s: float = 10.0
    reconnects: int = 5
    trim: bool = False
    if_unconfirmed: Unconfirmed = Unconfirmed.REFUSE
    board: str | None = None
    ensure_version: bool = False
    allow_downgrade: bool = False
    soak_s: float = 0.0
    checks: tuple[HealthCheck | OutsideCheck, ...] = ()
    check_timeout_s: float = 60.0
    rollback: bool = False
    package_boards: tuple[tuple[int, str], ...] = ()
    image_order: tuple[int, ...] = ()
    recovery: bool = False
    name_board: bool = False
    bootloader: bool = False

    def __post_init__(self) -> None:
        for name in ("erase_timeout_s", "boot_timeout_s", "check_timeout_s"):
            if not getattr(self, name) > 0:
                raise InvalidPolicy(name, "must be more than 0 s")
        for name in ("quiet_s", "grace_s", "soak_s"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InvalidPolicy(name, "must not be negative")
        for name in ("window", "chunk_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidPolicy(name, "must be at least 1")
        for name in ("image", "reconnects"):
            if getattr(self, name) < 0:
                raise InvalidPolicy(name, "must not be negative")
        if self.rollback and not (self.checks or self.soak_s):
            raise InvalidPolicy("rollback", "needs a check that can fail: --health-check, --soak, or one of a plugin")
        if len(set(self.image_order)) < len(self.image_order) or any(number < 0 for number in self.image_order):
            raise InvalidPolicy("image_order", "must name each image once, by its number")
        if self.board == "":
            raise InvalidPolicy("board", "must not be empty")
        if self.upgrade_only and self.allow_downgrade:
            raise InvalidPolicy("allow_downgrade", "contradicts --upgrade-only")
