"""`mcumgrx dfu`: an update from the file to the proof, shown step by step. What an update does is in `flows`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PlanRefused, UsageError
from ..events import Event, Note, Stage, StageName
from ..plugin_api import Argument, Option, cli_command
from .arguments import WEB
from .text import duration_text, rate_text, size_text

if TYPE_CHECKING:
    from ..contracts import HealthCheck, OutsideCheck
    from ..flows import DfuPolicy, Plan, Report
    from ..mcuboot import Image, PackageImage
    from .checklist import Checklist
    from .context import Context
    from .fleet import FleetResult

__all__ = ["DfuResult", "PlanView", "dfu"]

# What the policy's fields are called here.
_OPTION_OF = {
    "mode": "--mode",
    "image": "--image",
    "erase": "--erase",
    "erase_timeout_s": "--erase-timeout",
    "chunk_bytes": "--chunk",
    "window": "--window",
    "boot_timeout_s": "--boot-timeout",
    "quiet_s": "--quiet-time",
    "trim": "--trim",
    "if_unconfirmed": "--if-unconfirmed",
    "board": "--expect-board",
    "ensure_version": "--ensure-version",
    "upgrade_only": "--upgrade-only",
    "allow_downgrade": "--allow-downgrade",
    "soak_s": "--soak",
    "check_timeout_s": "--health-timeout",
    "rollback": "--rollback",
    "image_order": "--image-order",
    "recovery": "--recovery",
    "bootloader": "--bootloader",
}

# `flows.policy.Mode` and `Unconfirmed` again, because help imports no flows; a test compares them.
MODES = ("test-and-confirm", "confirm-only", "test-only", "upload-only")
UNCONFIRMED = ("refuse", "revert", "confirm")


# A plan has at most so many lines, for a small terminal.
_PLAN_LINES = 12


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan as it is shown before anything is touched."""

    address: str
    plan: Plan

    def lines(self, *, reasons: bool = False) -> list[str]:
        plan, steps = self.plan, [f"{number}. {text}" for number, text in enumerate(self.plan.texts, 1)]
        if reasons:
            steps = [f"{step}: {why}" for step, (_, _, why) in zip(steps, plan.told, strict=True)]
        if plan.parts:
            images = [self._image(part) for part in plan.parts]
            room = _PLAN_LINES - 1 - len(steps)
            if len(images) > room:
                images = [*images[: room - 1], f"... and {len(images) - room + 1} more images"]
            return [f"device   {self.address}", *images, *steps]
        return [
            f"device   {self.address}",
            f"running  {plan.from_version or 'not known'}",
            f"new      {plan.to_version} (hash {plan.hash[:8]})",
            *steps,
        ]

    def checklist(self) -> Checklist:
        """The same for a terminal, where it is ticked off; the steps have what room they need."""
        from .checklist import Checklist

        plan = self.plan
        at = self.address if plan.board is None else f"{plan.board} at {self.address}"
        steps = plan.lines or [(step.name, step.text) for step in plan.steps]
        new = [self._image(part) for part in plan.parts] or [self._change(plan)]
        room = _PLAN_LINES - 1 - len(steps)
        if room <= 0:
            return Checklist([f"{at}: {self._change(plan)}"], steps)
        if len(new) > room:
            new = [*new[: room - 1], f"... and {len(new) - room + 1} more images"]
        return Checklist([at, *new], steps)

    def _change(self, plan: Plan) -> str:
        return f"{plan.from_version or 'not known'} -> {plan.to_version} (hash {plan.hash[:8]})"

    def _image(self, part: Plan) -> str:
        if not part.steps:
            return f"image {part.number}  {'; '.join(part.notes) or 'nothing to do'}"
        return f"image {part.number}  {self._change(part)}"

    def as_dict(self) -> dict[str, object]:
        return {"address": self.address, **self.plan.as_dict()}


@dataclass(frozen=True, slots=True)
class DfuResult:
    """How an update ended, in one sentence for people and in full for scripts."""

    report: Report
    dry_run: bool = False

    def as_dict(self) -> dict[str, object]:
        return self.report.as_dict()

    def lines(self) -> list[str]:
        from ..flows import Ending

        report = self.report
        if report.ending is Ending.NOTHING_TO_DO:
            return [f"done: {report.summary}, nothing to do"]
        if report.ending is Ending.NOT_STARTED:
            if not report.plan.steps:
                return [f"dry run: {'; '.join(report.plan.notes) or 'nothing to do'}"]
            return [*PlanView(report.address, report.plan).lines(reasons=True), "dry run: nothing was changed"]
        done = {
            Ending.CONFIRMED: f"{report.to_version} is running and confirmed",
            Ending.ON_TRIAL: f"{report.to_version} is running on trial: confirm it, or the next reset goes back",
            Ending.UPLOADED: f"{report.to_version} is in slot {report.plan.slot}",
        }
        if report.plan.parts:
            done = {
                Ending.CONFIRMED: f"{report.what} are running and confirmed",
                Ending.ON_TRIAL: f"{report.what} are running on trial: confirm them, or the next reset goes back",
                Ending.UPLOADED: f"{report.what} are in the device",
            }
        facts = [duration_text(report.elapsed_s)]
        if report.bytes_sent:
            rate = f" at {rate_text(report.bytes_per_s)}" if report.bytes_per_s else ""
            facts.append(size_text(report.bytes_sent) + rate)
        return [f"done: {done.get(report.ending, report.summary)} ({', '.join(facts)})"]


@cli_command(
    Argument(
        "file",
        "the image: a signed .bin or .hex, a package (dfu_application.zip) or a build directory; of several files each "
        "as N=FILE; two for the slots of one image (direct XIP) need no number",
        many=True,
    ),
    Option("--mode", "How far to go.", default="test-and-confirm", choices=MODES, metavar="MODE"),
    Option("--dry-run", "Show the plan and change nothing.", type=bool),
    Option("--erase", "Erase the slot first; rarely needed.", type=bool),
    Option(
        "--if-unconfirmed",
        "What to do if the running image is on trial, and another one.",
        default="refuse",
        choices=UNCONFIRMED,
        metavar="ACTION",
    ),
    Option("--expect-board", "Refuse a device that does not say that it is this board.", metavar="NAME"),
    Option("--ensure-version", "Do nothing if the file's version runs, even as another build.", type=bool),
    Option("--upgrade-only", "Refuse a version that is not newer than the running one.", type=bool),
    Option("--allow-downgrade", "A version older than the running one is wanted: do not warn of it.", type=bool),
    Option("--soak", "Watch the new image before it is confirmed.", type=float, default=0.0, metavar="SECONDS"),
    Option("--health-check", "Confirm only if this command ends with status 0.", metavar="COMMAND"),
    Option("--health-timeout", "How long a check may take.", type=float, default=60.0, metavar="SECONDS"),
    Option("--rollback", "Reset a device that is not healthy, and prove that the old image is back.", type=bool),
    Option("--recovery", "Update through the bootloader's serial recovery, over the application.", type=bool),
    Option("--bootloader", "Replace the bootloader itself, by a file of dfu_mcuboot.zip.", type=bool),
    Option("--trim", "Send a padded file (imgtool --pad, --confirm) without its padding.", type=bool),
    Option("--image", "Number of the image (core) [default: what the file says, or 0].", type=int, metavar="N"),
    Option("--image-order", "In which several images are uploaded and marked, as 1,0.", metavar="N,N"),
    Option("--chunk", "At most this much data in a message.", type=int, metavar="BYTES"),
    Option(
        "--window", "At most this many messages on their way; default: what the device takes.", type=int, metavar="N"
    ),
    Option("--erase-timeout", "How long an erase may take.", type=float, default=60.0, metavar="SECONDS"),
    Option("--boot-timeout", "How long the device may take to return.", type=float, default=120.0, metavar="SECONDS"),
    Option(
        "--quiet-time",
        "Silence after a reset before the device is asked [default: what the link needs].",
        type=float,
        metavar="SECONDS",
    ),
    Option("--match", "All devices that can be seen and fit this, as 'ble:Sensor-*'.", metavar="PATTERN", many=True),
    Option("--devices", "All devices in this list, an address in each line.", type=Path, metavar="FILE"),
    Option("--jobs", "Of several devices so many at once, as 8 or ble=2 [default: 16, ble=3].", many=True, metavar="N"),
    Option("--canary", "Of several devices so many first; the rest when they are proven.", type=int, default=0),
    Option("--max-failures", "Begin no more devices after more failures than these.", type=int, metavar="N"),
    Option("--stop-on", "Begin no more devices after one that ends so, as reverted.", many=True, metavar="ENDING"),
    Option("--ledger", "Keep in this file what has become of each device.", type=Path, metavar="FILE"),
    Option("--dask", "Each device at a worker of this Dask cluster, as 'ADDRESS @WORKER'.", metavar="SCHEDULER"),
    many_devices=True,
    epilog="""
    Modes:
      test-and-confirm  boot the image once, prove that it runs, then keep it;
                        if anything fails, the old image comes back (default)
      confirm-only      keep it before it has ever run: there is no way back
      test-only         boot it once; somebody else confirms it
      upload-only       put it into the device and no more

    If another image runs on trial (--if-unconfirmed):
      refuse            change nothing (default)
      revert            reset it first, so that the old image comes back
      confirm           confirm it first

    The command of --health-check finds the device free, and in its environment
    MCUMGRX_DEVICE, MCUMGRX_VERSION and MCUMGRX_HASH. Where it, --soak or a
    plugin's check fails, the new image is left unconfirmed.

    Examples:
      mcumgrx dfu app.signed.bin -d /dev/ttyACM0
      mcumgrx dfu app.signed.bin -d serial:/dev/ttyACM0,baud=1000000
      mcumgrx dfu app.signed.bin -d sim:desk,state=device.json --dry-run
      mcumgrx dfu build/dfu_application.zip -d /dev/ttyACM0
      mcumgrx dfu 0=app.bin 1=net.bin -d /dev/ttyACM0
      mcumgrx dfu installer_softdevice_firmware_loader.bin app.bin -d ble:Widget

    What cannot be undone is asked for before anything is changed; --yes answers.
    Without a terminal and without --yes it is refused.

    Through a firmware loader the file overwrites the application; an installer goes
    before it, in whatever order the two are named.

    Several images, of a package or each with its number, are uploaded, marked and
    started by one reset; they are confirmed when all are proven to run, or none is.

    Several devices (-d A -d B, --match, --devices) are all read and planned before
    one is touched; each is proven by itself. If some fail the exit code is 12.

    Interrupted? The same command again reads the device and goes on from there.
    """,
)
async def dfu(
    context: Context, file: tuple[str, ...], image: int | None, dry_run: bool, health_check: str | None, **options: Any
) -> DfuResult | FleetResult:
    """Bring the image in FILE onto a device, and prove that it runs.

    The file is checked, the device is read, and the plan is shown before anything is touched. Then: upload, mark for
    a test boot, reset, wait for the device to return, prove that the new image is the active one, confirm it. What is
    done already is not done again. Several images at once, as for two cores, are named N=FILE, each with its number.
    """
    from ..flows import update
    from .fleet import FleetOptions, update_all

    policy = _policy(image=image or 0, checks=_checks(health_check, options), **options)
    several = FleetOptions.of(options)
    device = None if several.are_meant(context) else context.device
    images, boards = await _inspect(list(_named(file, image)), context, bootloader=policy.bootloader)
    policy = replace(policy, package_boards=boards)
    if device is None:
        return await update_all(context, several, images, policy, dry_run)
    listener = _Listener(context, device.address, dry_run)
    report = await update(device, images, policy, listener, on_plan=listener.on_plan)
    return DfuResult(report, dry_run)


def _checks(command: str | None, options: dict[str, Any]) -> tuple[HealthCheck | OutsideCheck, ...]:
    """What the new image has to stand: nothing where it is not started."""
    if command is not None and not command.strip():
        raise UsageError("--health-check must not be empty")
    if options["mode"] == "upload-only":
        return ()
    from .health import command_check, plugin_checks

    if command is None:
        return plugin_checks()
    return (*plugin_checks(), command_check(command, options["health_timeout"]))


def _policy(checks: tuple[HealthCheck | OutsideCheck, ...], **options: Any) -> DfuPolicy:
    """The policy that these options make, which are passed under their names without dashes."""
    from ..flows import DfuPolicy, Mode, Unconfirmed
    from ..flows.policy import InvalidPolicy

    fields = {field: options[option[2:].replace("-", "_")] for field, option in _OPTION_OF.items()}
    fields["mode"], fields["if_unconfirmed"] = Mode(fields["mode"]), Unconfirmed(fields["if_unconfirmed"])
    fields["image_order"] = _order(fields["image_order"])
    try:
        return DfuPolicy(**fields, checks=checks, name_board=True)
    except InvalidPolicy as error:
        raise UsageError(f"{_OPTION_OF[error.field]} {error.requirement}") from error


def _order(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    numbers = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,2}", number) for number in numbers):
        raise UsageError("--image-order must be the numbers of images with commas between, as 1,0")
    return tuple(int(number) for number in numbers)


_NUMBERED = re.compile(r"(\d{1,2})=(.*)", re.DOTALL)


def _named(files: Sequence[str], image: int | None) -> Iterator[tuple[int | None, Path]]:
    """The files, each with the number of the image that is to be taken from it; None for what it says itself."""
    for text in files:
        match = _NUMBERED.fullmatch(text)
        number, name = (image, text) if match is None else (int(match[1]), match[2])
        if not name:
            raise UsageError("the name of the file is empty")
        if WEB.match(name):
            raise UsageError(f"{name} is a web address: download it, and name the file")
        if image is not None and match is not None:
            raise UsageError(f"--image is for a file without a number, and {text} has one", hint="leave --image out")
        yield number, Path(name)


async def _inspect(
    files: Sequence[tuple[int | None, Path]], context: Context, *, bootloader: bool = False
) -> tuple[dict[int, Image | dict[int, Image]], tuple[tuple[int, str], ...]]:
    """The images by their numbers, and the boards that they were built for, as far as they say."""
    from time import monotonic

    from ..flows import INSTALLER_FIRST
    from ..mcuboot import by_slot, load_package
    from ..threads import in_thread

    begin_s = monotonic()
    context.progress(Stage(StageName.INSPECT, f"checking {_shown(file for _, file in files)}"))
    packages = [await in_thread(load_package, file) for _, file in files]  # which may be a pipe, or hang
    chosen = [
        package.choose_all(number, bootloader=bootloader) for package, (number, _) in zip(packages, files, strict=True)
    ]
    installers = [one for package in packages if (one := package.installer) is not None]
    if any(not one.image.installer for found in chosen for one in found):  # which then follows
        installers += [one for found in chosen for one in found if one.image.installer]
        chosen = [tuple(one for one in found if not one.image.installer) for found in chosen]
    if len(installers) > 1:
        raise UsageError("there are two installers", hint="name the one that comes before the application")
    every = [one for found in chosen for one in found]
    images = by_slot(every if bootloader else _one_for_each_place(every))
    texts = []
    for (_, file), found in zip(files, chosen, strict=True):
        for one in found:
            told = f"{one.name}, image {one.number}: " if one.name else ""
            size, hash = size_text(one.image.size), one.image.hash.hex()[:8]
            texts.append(f"{file.name or file}: {told}{one.image.version}, {size}, hash {hash}")
    for installer in installers:
        images[INSTALLER_FIRST] = installer.image
        texts.append(f"installer: {installer.image.version}, {size_text(installer.image.size)}")
    context.progress(Stage(StageName.INSPECT, "; ".join(texts), finished=True, elapsed_s=monotonic() - begin_s))
    for package, found in zip(packages, chosen, strict=True):
        for note in package.notes:
            context.progress(Note(note))
        told_of = package.told_of(*found)
        for warning in dict.fromkeys((*(text for one in found for text in one.image.warnings), *told_of)):
            context.progress(Note(warning, warning=True))
    boards = {one.number: one.board for found in chosen for one in found if one.board is not None}
    return images, tuple(sorted(boards.items()))


def _one_for_each_place(found: Sequence[PackageImage]) -> Iterator[PackageImage]:
    """The images, those of two files for one image with the slots that they are linked for."""
    from ..mcuboot.variants import as_pair

    for number in dict.fromkeys(one.number for one in found):
        same = [one for one in found if one.number == number]
        pair = as_pair(*same) if len(same) == 2 else None
        if len(same) > 1 and pair is None:
            raise UsageError(
                f"there are two files for image {number}, and they are not linked for its two slots (direct XIP)",
                hint="name the image of each: 0=FILE 1=FILE",
            )
        yield from pair or same


def _shown(files: Iterable[Path]) -> str:
    return " and ".join(file.name or str(file) for file in files)


class _Listener:
    """Passes the flow's events on; what concerns the plan is held back until the plan itself has been shown."""

    def __init__(self, context: Context, address: str, dry_run: bool) -> None:
        self._context = context
        self._address = address
        self._dry_run = dry_run
        self._held: list[Note] | None = None

    def __call__(self, event: Event) -> None:
        if self._held is not None and isinstance(event, Note):
            self._held.append(event)
            return
        self._context.progress(event)
        if isinstance(event, Stage) and event.name is StageName.PLAN and event.finished:
            self._held = []

    async def on_plan(self, plan: Plan) -> bool:
        held, self._held = self._held or [], None
        if plan.steps and not self._dry_run:
            self._context.show("plan", PlanView(self._address, plan))
        for note in held:
            if plan.steps or note.warning:  # without steps the note is the result
                self._context.progress(note)
        if self._dry_run:
            return False
        if plan.no_way_back and not await self._context.confirm("Go on all the same?"):
            raise _not_agreed(plan)
        return True


def _not_agreed(plan: Plan) -> PlanRefused:
    from ..flows.plan import Reset, Upload

    in_place = any(upload.in_place for _, upload in plan.tasks(Upload))  # which is what there is to agree to
    starts = plan.has(Reset) and not in_place
    return PlanRefused(
        f"nothing was changed, because nobody has agreed: {'; '.join(plan.no_way_back)}",
        slot=plan.slot,
        hint="give --yes, or answer the question with y"
        + ("; --mode upload-only puts the file into the device, and starts nothing" if starts else ""),
    )
