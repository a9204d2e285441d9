"""The plan of an update: from file, device and policy to steps, or to a refusal with the reason and the way out.

Pure: nothing here talks to a device, so every combination can be tested in a table. `dfu` carries a plan out.

What decides is the image list. The running slot (A) is the one flagged active, B is the other. From Zephyr's
`img_mgmt_state.c`: A not confirmed means that it is on trial and the next reset goes back to B; B pending means that
the next reset installs it. The bootloader's mode decides what a mark does; where the device does not tell its mode, it
is taken for one that swaps, and a device that knows no marks says so when it is asked for one.

MCUboot's serial recovery answers the same image list, without a flag for what runs (nothing does; `listing`). A list
without an active slot, without `splitStatus` and without bootloader information is taken for it. What is done there, or
once a device is there, is decided in `recovery_plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import PlanRefused
from ..hints import Hint, Run
from ..mcuboot import Image
from ..messages.standard import Slot
from .boards import check_package_board
from .device_state import DeviceState, Kind, is_board, read_version, shown_version
from .fit import Fit
from .loader import plan_through_loader
from .plan import Check, Confirm, Erase, Look, Mark, Plan, Prove, Reset, Soak, Step, Upload
from .policy import DfuPolicy, Mode
from .recovery_plan import plan_recovery
from .requests import IN_PLACE, Choice

__all__ = ["plan_one", "plan_together"]


def _marks(kind: Kind, state: DeviceState) -> bool | None:
    """Whether the device takes marks; None where only trying tells."""
    if kind is Kind.NEWEST:
        return False
    return None if not state.mode_known or kind is Kind.NEWEST_MAYBE_REVERT else True


def plan_one(image: Image, state: DeviceState, policy: DfuPolicy, installer: Image | None = None) -> Plan:
    """What has to be done so that `image` runs as `policy` wants it, after `installer`. Raises `PlanRefused`.

    Done already is done: an image that runs is not sent again, nor one that lies in the other slot, unless
    `policy.erase` asks for a clean start.
    """
    return _Planner(image, state, policy, {policy.image: image}, together=False, installer=installer).plan()


def plan_together(files: Mapping[int, Image], state: DeviceState, policy: DfuPolicy, *, together: bool) -> Plan:
    """As `plan_one`, for image `policy.image` of several files, by their numbers.

    `together`: more than one of them is yet to be installed, by the same reset.
    """
    return _Planner(files[policy.image], state, policy, files, together=together).plan()


class _Planner:
    def __init__(
        self,
        image: Image,
        state: DeviceState,
        policy: DfuPolicy,
        files: Mapping[int, Image],
        *,
        together: bool,
        installer: Image | None = None,
    ) -> None:
        self.image = image
        self.state = state
        self.policy = policy
        self.files = files
        self.together = together
        self.installer = installer
        self.number = policy.image
        self.kind = state.kind
        self.a = state.installed(policy.image)
        self.old = None if self.a is None else shown_version(self.a.version)
        self.new = str(image.version)
        slot = 1 - self.a.slot if self.a is not None and self.a.slot in (0, 1) else 1
        self.fit = Fit(image, state, policy, 0 if self._in_place else slot, files, together, self._in_place)
        self.slot = self.fit.slot
        self.notes = self.fit.notes
        self.warnings = self.fit.warnings
        self.tried = False  # whether only its mark tells that it will run

    @property
    def others(self) -> bool:
        """Other images are updated, too."""
        return len(self.files) > 1

    @property
    def _in_place(self) -> bool:
        """The file overwrites the application."""
        return self.state.recovery or self.policy.recovery or self.kind in (Kind.SINGLE, Kind.LOADER)

    def plan(self) -> Plan:
        self._check_board()
        check_package_board(self.fit)
        self._check_image_number()
        if self.state.recovery:
            return self._done(*plan_recovery(self.fit, self._gate(), enter=False))
        if self.a is not None and self._is_as_wanted(self.a):
            return self._plan_running(self.a)
        if self.kind is Kind.LOADER:
            self._check_version()
            return self._done(*plan_through_loader(self.fit, self._gate(), self.installer))
        self.fit.check_hash_type()
        self.fit.check_kind()
        if self.a is not None and not self.a.confirmed:
            raise self._unconfirmed(self.a)
        self._check_unlisted_trial()
        self._check_version()
        self.fit.check_others()
        if self._in_place:
            return self._done(*plan_recovery(self.fit, self._gate(), enter=True))
        return self._plan_change()

    def _is_as_wanted(self, a: Slot) -> bool:
        """What runs is the file, or, where that is enough, its version."""
        if self.state.in_loader or self.installer is not None:
            return False
        if a.hash in self.image.hashes_when_running:
            return True
        return self.policy.ensure_version and a.confirmed and read_version(a.version) == self.image.version

    def _plan_running(self, a: Slot) -> Plan:
        """The image runs already: on trial, or for good."""
        self.slot = a.slot
        b = self.state.images.other(self.number)
        if b is not None and b.pending and b.hash != a.hash:
            self.warnings.append(
                f"slot {b.slot} holds {shown_version(b.version)}, which the next reset installs in its place"
            )
        if self.policy.erase:
            self.notes.append("nothing is erased: there is nothing to upload")
        if a.confirmed:
            other = "" if a.hash in self.image.hashes_when_running else ", as another build of that version"
            self.notes.append(f"{self.new} is already running and confirmed{other}")
            return self._done()
        if self.policy.mode in (Mode.TEST_ONLY, Mode.UPLOAD_ONLY):
            self.notes.append(f"{self.new} is already running, not yet confirmed")
            if not self.together:
                self.warnings.append("the next reset goes back to the old image unless it is confirmed before")
            return self._done()
        self.notes.append(f"{self.new} is already running, only not confirmed yet")
        return self._done(*self._gate(), self._confirm())

    def _gate(self) -> list[Step]:
        """What the new image has to stand once it runs."""
        steps: list[Step] = [Soak(self.policy.soak_s)] if self.policy.soak_s else []
        if self.policy.checks:
            steps.append(Check(tuple(check.name for check in self.policy.checks)))
        if self.policy.rollback:
            self.notes.append(f"{self.new} is taken back by a reset if it is not healthy")
        return steps

    def _confirm(self) -> Confirm:
        """Of image 0 without a hash: both slots may hold it, and a hash finds the first that does."""
        or_mark = self.together and self.kind is Kind.SWAP and self.state.mode_known
        return Confirm(self.new, self.image.hash if self.number else None, or_mark)

    def _check_unlisted_trial(self) -> None:
        """What is confirmed and does not run is what a trial goes back to, be it listed what runs or not."""
        there = (slot for slot in self.state.images.slots if (slot.image, slot.slot) == (self.number, 1))
        b = next(there, None)
        if self.a is None and b is not None and b.confirmed:
            raise self._refused(
                f"what runs of image {self.number} is on trial, and {shown_version(b.version)} waits in slot 1 to come "
                "back",
                Hint("go back to it with ", Run("os reset"), ", or let what runs confirm itself"),
            )

    def _plan_change(self) -> Plan:
        """Another image runs, for good (or the device does not say which)."""
        mode = self.policy.mode
        b = None if self.policy.erase else self._staged()
        if b is not None and self._is_lost_trial(b):
            self.notes.append(f"{self.new} waits for a test boot that nobody could confirm: it is sent again")
            b = None
        if b is not None:
            self.slot = b.slot
            self.notes.append(f"{self.new} is already in slot {b.slot}: no upload")
            transfer: list[Step] = []
        else:
            transfer = self._transfer()
        if mode is Mode.UPLOAD_ONLY:
            if self.policy.checks or self.policy.soak_s:
                self.notes.append("nothing is checked: the new image is not started")
            if b is not None and b.pending:
                self.warnings.append(f"the next reset installs {self.new}")
            elif self.kind in (Kind.NEWEST, Kind.NEWEST_MAYBE_REVERT):
                self.warnings.append("this bootloader runs the newest version: the next reset may start it")
            elif self.kind is Kind.NEWEST_REVERT:
                self.warnings.append("this bootloader erases a newer image that is not marked: mark it before a reset")
            return self._done(*transfer)
        self._warn_of_others()
        return self._done(*transfer, *self._activation(b))

    def _is_lost_trial(self, b: Slot) -> bool:
        """Its mark is one for a test, and what runs of this image is not listed, so that the next reset takes it back.

        A mark cannot be changed; only a new upload ends it.
        """
        wanted = self.policy.mode in (Mode.TEST_AND_CONFIRM, Mode.CONFIRM_ONLY)
        return (
            wanted and self.a is None and self.number > 0 and self.kind is Kind.SWAP and b.pending and not b.permanent
        )

    def _transfer(self) -> list[Step]:
        """The upload, and what comes before it."""
        self.fit.check_padding()
        self.fit.check_size()
        steps: list[Step] = [self._upload()]
        if self.policy.erase:
            steps.insert(0, Erase(2 * self.number + self.slot if self.number or self.a is not None else None))
        other = self.state.images.other(self.number)
        if other is not None and other.pending and self.a is not None:
            how = "waiting to be installed for good" if other.permanent else "waiting to be installed"
            self.warnings.append(
                f"slot {other.slot} holds {shown_version(other.version)}, {how}: it is given up for this file"
            )
        return steps

    def _upload(self) -> Upload:
        sent = self.fit.sent
        session, done = self.state.begun or (None, 0)
        if self.policy.erase or session != sent.file_sha256 or not 0 < done < sent.size:
            done = 0
        return Upload(sent.size, self.slot, self.new, trimmed=sent is not self.image, resumed_from=done)

    def _activation(self, b: Slot | None) -> list[Step]:
        """Mark (where that is needed and works), reset, prove, confirm (where that is wanted and needed)."""
        mode = self.policy.mode
        permanent = mode is Mode.CONFIRM_ONLY or self._mark_to_stay()
        confirm = mode is Mode.TEST_AND_CONFIRM and not permanent
        marks = _marks(self.kind, self.state)
        mark: list[Step] = []
        if marks is False:
            mark, confirm = self._by_version(b), False
        elif b is not None and b.pending:
            confirm = self._marked_already(b, permanent=permanent, confirm=confirm)
        else:
            if self.kind is Kind.OVERWRITE and mode is Mode.TEST_AND_CONFIRM:
                permanent = True
            undo = 2 * self.number + self.slot if self.tried and b is None else None
            mark = [Mark(permanent, required=marks is True, undo=undo)]
            if self.kind is Kind.NEWEST_MAYBE_REVERT and not permanent:
                self.warnings.append("this bootloader may know no test boot: there is no way back then")
        if self.kind is Kind.OVERWRITE:
            confirm = False
            self.fit.for_good("this bootloader overwrites the old image: there is no way back")
        elif mark and mode is Mode.CONFIRM_ONLY:
            self.fit.for_good("it is marked to stay before it has run: there is no way back")
        prove = Prove(self.new, listed=self._will_be_listed())
        last = [self._confirm()] if confirm and prove.listed else []
        if self.policy.rollback and not last:
            self._check_rollback(b)
        return [*mark, Reset(), prove, *self._gate(), *last]

    def _by_version(self, b: Slot | None) -> list[Step]:
        """What takes the place of the mark where there are none: the list shows what the next boot takes."""
        self.notes.append("no mark: this bootloader runs the newest version by itself")
        self.fit.for_good("this bootloader knows no test boot: the new image stays, there is no way back")
        running = None if self.a is None else read_version(self.a.version)
        # Whether the build number counts there is not known.
        told = running is not None and self.image.version[:3] != running[:3]
        return [Look(self.new)] if told and not (b is not None and b.pending) else []

    def _marked_already(self, b: Slot, *, permanent: bool, confirm: bool) -> bool:
        """Whether it is to be confirmed all the same."""
        if self.kind is Kind.NEWEST_REVERT:
            # Some lists say permanent of a test as well there; what it was shows once it runs.
            self.notes.append(f"{self.new} is already marked for the next boot")
            if b.permanent and not permanent:
                self.warnings.append("it may be marked to stay: there is no way back then")
            return confirm or permanent
        self.notes.append(f"{self.new} is already marked {'to stay' if b.permanent else 'for a test boot'}")
        if b.permanent:
            if self.kind is not Kind.OVERWRITE:
                self.fit.for_good("a mark cannot be taken back: the new image stays, there is no way back")
            return False
        if permanent and self.kind is not Kind.OVERWRITE:
            # The device refuses to turn a test into a permanent mark (error 28 of the image group).
            self.notes.append("the mark cannot be changed: it is confirmed once it runs")
            return True
        return confirm

    def _check_rollback(self, b: Slot | None) -> None:
        """Whether a reset can take back what nobody is going to confirm."""
        to_stay = b is not None and b.permanent and self.kind is not Kind.NEWEST_REVERT
        if self.policy.mode is not Mode.TEST_ONLY or to_stay or self.kind in (Kind.OVERWRITE, Kind.NEWEST):
            raise self._refused(
                f"{self.new} would stay whatever its health, so that --rollback cannot be kept",
                "leave it out, or use --mode test-and-confirm where the bootloader knows a way back",
            )

    def _mark_to_stay(self) -> bool:
        """Whether a test boot would be one that nobody can confirm.

        A confirm over SMP means the application that answers, image 0; other images Zephyr refuses to confirm once
        they run, unless it is built for that (`img_mgmt_state_write`).
        """
        if self.number == 0 or self.kind in (Kind.OVERWRITE, Kind.NEWEST, Kind.NEWEST_REVERT):
            return False  # with direct XIP a confirmation is written to whatever slot has the hash
        if self.together and self.a is not None and self.policy.mode is Mode.TEST_AND_CONFIRM:
            # One that stays beside one that goes back would be a mixture, which may run less well than either.
            refused = "no image is confirmed, and the next reset takes all of them back"
            if self._confirm().or_mark:
                refused = "all go back once they are proven, to be marked to stay: two more resets"
            self.warnings.append(
                f"it can be confirmed from here only if the device is built for that; if not, {refused}"
            )
            return False
        if self.policy.mode is Mode.TEST_ONLY:
            self.warnings.append(
                f"image {self.number} cannot be confirmed from here once it runs: unless its application does that "
                "itself, the reset after the next goes back"
            )
        elif self.policy.mode is Mode.TEST_AND_CONFIRM:
            self.fit.for_good(
                f"image {self.number} cannot be confirmed from here once it runs: it is marked to stay before it has "
                "run, and there is no way back"
            )
            return True
        return False

    def _will_be_listed(self) -> bool:
        """Whether the list will show the new image once it runs.

        The primary slot of another core may be out of the application's reach, and is then never listed; so is a core
        whose images go through a slot of the application (nRF5340).
        """
        if self.number and self.a is None:
            self.warnings.append(
                f"the device does not list what runs of image {self.number}: after the reset there is only to see "
                f"whether {self.new} has left slot {self.slot}"
            )
            return False
        if self.number == 0 and self.image.for_network_core:
            self.warnings.append(
                f"after the reset there is only to see whether {self.new} has left slot {self.slot}: the application "
                "stays as it is"
            )
            return False
        return True

    # -- refusals

    def _check_board(self) -> None:
        wanted, told = self.policy.board, self.state.board
        if wanted is None:
            return
        if told is None:
            raise self._refused(
                f"the device does not say which board it is, and {wanted} is expected",
                Hint(
                    "its firmware needs CONFIG_MCUMGR_GRP_OS_INFO to tell (",
                    Run("os info"),
                    "); leave out --expect-board where you know better",
                ),
            )
        if not is_board(told, wanted):
            raise self._refused(
                f"the device's board is {told}, and not {wanted}",
                "is it the right device, and the right file? --expect-board names what it has to be",
            )
        self.notes.append(f"the board is {told}, as expected")

    def _check_image_number(self) -> None:
        known = self.state.image_numbers
        # A server with one image ignores the number and would write its only one (Zephyr, `img_mgmt_get_unused_slot`).
        if self.number == 0 or self.number in known:
            return
        if self.state.slots is not None:
            has = ", ".join(str(number) for number in sorted(known))
            raise PlanRefused(
                f"the device has no image {self.number}", hint=Hint(f"it has {has}; see ", Run("image slots"))
            )
        raise PlanRefused(
            f"the device lists no image {self.number}",
            hint=Hint(
                "most devices have image 0 alone, and write the file there whatever its number; if this one is known "
                "to take more, ",
                Run("image upload", self.image.path or "FILE", "--image", str(self.number)),
                " sends it unseen",
            ),
        )

    def _unconfirmed(self, a: Slot) -> PlanRefused:
        b = self.state.images.other(self.number)
        old = shown_version(a.version)
        if b is not None and b.hash in self.image.hashes_when_running:
            return self._refused(
                f"{old} runs on trial, and {self.new} waits in slot {b.slot} to come back",
                Hint("go back to it with ", Run("os reset")),
                slot=a.slot,
            )
        confirm = Run("image confirm", *((a.hash.hex(),) if self.number and a.hash is not None else ()))
        return self._refused(
            f"the running image {old} is not confirmed: the device keeps the other slot to go back to it",
            Hint(
                "confirm it with ",
                confirm,
                ", or go back to the old one with ",
                Run("os reset"),
                "; or let --if-unconfirmed confirm or --if-unconfirmed revert do that",
            ),
            slot=a.slot,
        )

    def _check_version(self) -> None:
        running = None if self.a is None else read_version(self.a.version)
        if self.a is None and self.number == 0 and self.kind is not Kind.LOADER:
            self.warnings.append("the device does not say which image runs")
        if running is None or self.a is None:
            return
        new = self.image.version
        if self.policy.upgrade_only and new <= running:
            raise self._refused(
                f"{self.new} is not newer than {self.old}, and only upgrades are wanted",
                "leave out --upgrade-only to install it all the same",
            )
        older = new[:3] < running[:3]
        if older and self.state.bootloader.no_downgrade:
            raise self._refused(
                f"{self.new} is older than {self.old}, and the bootloader refuses to go back",
                "build a file with a higher version",
            )
        if self.kind in IN_PLACE:
            choice = Choice(new, self.a, self.state, self.policy, self.notes, self.warnings, self._refused)
            choice.check()
            self.tried = choice.tried
        if older:
            told = self.notes if self.policy.allow_downgrade else self.warnings
            told.append(f"this is a downgrade, from {self.old} to {self.new}")
        elif new == running and self.a.hash != self.image.hash:
            self.warnings.append(f"another image with the same version {self.old} runs")

    def _refused(self, message: str, hint: str, *, slot: int | None = None) -> PlanRefused:
        return PlanRefused(message, slot=self.slot if slot is None else slot, hint=hint)

    # -- parts

    def _staged(self) -> Slot | None:
        """The slot, not running, that already holds the image."""
        held = self.state.images.holding(self.image.hash, self.number)
        return next((slot for slot in held if not slot.active), None)

    def _warn_of_others(self) -> None:
        for slot in self.state.images.slots:
            if slot.image in self.files:
                continue
            if slot.pending:
                self.warnings.append(f"the reset also installs {shown_version(slot.version)} of image {slot.image}")
            elif slot.active and not slot.confirmed:
                if slot.image < self.number and self.kind is Kind.SWAP:
                    raise self._holds_up(slot)
                self.warnings.append(
                    f"{shown_version(slot.version)} of image {slot.image} runs on trial: the reset also ends that"
                )

    def _holds_up(self, slot: Slot) -> PlanRefused:
        # One that waits tells MCUboot that trials before it have not begun (`boot_review_image_swap_types`).
        confirm = Run("image confirm", *((slot.hash.hex(),) if slot.image and slot.hash is not None else ()))
        return self._refused(
            f"{shown_version(slot.version)} of image {slot.image} runs on trial, and the installation of image "
            f"{self.number} would put off its end: it would neither stay nor go back",
            Hint("confirm it with ", confirm, ", or go back with ", Run("os reset"), ", before this update"),
            slot=slot.slot,
        )

    def _done(self, *steps: Step) -> Plan:
        sent = None if self.fit.sent is self.image else self.fit.sent
        notes, warnings = _unique(self.notes), _unique(self.warnings)
        what = (self.number, self.image.hash.hex(), self.fit.sent.size)
        final = _unique(self.fit.no_way_back) if steps else ()
        return Plan(
            tuple(steps),
            self.old,
            self.new,
            self.slot,
            notes,
            warnings,
            sent,
            *what,
            no_way_back=final,
            board=self.state.board,
        )


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
