"""`mcumgrx dfu`: an update from the file to the proof, shown step by step. What an update does is in `flows`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..events import Event, Note, Stage, StageName
from ..plugin_api import Argument, Option, cli_command
from .text import duration_text, rate_text, size_text

if TYPE_CHECKING:
    from ..flows import DfuPolicy, Plan, Report
    from ..mcuboot import PackageImage
    from .context import Context

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
}

# `flows.policy.Mode` and `Unconfirmed` again, because help imports no flows; a test compares them.
MODES = ("test-and-confirm", "confirm-only", "test-only", "upload-only")
UNCONFIRMED = ("refuse", "revert", "confirm")


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan as it is shown before anything is touched."""

    address: str
    hash: str
    plan: Plan

    def lines(self) -> list[str]:
        return [
            f"device   {self.address}",
            f"running  {self.plan.from_version or 'not known'}",
            f"new      {self.plan.to_version} (hash {self.hash[:8]})",
            *(f"{number}. {text}" for number, text in enumerate(self.plan.texts, 1)),
        ]

    def as_dict(self) -> dict[str, object]:
        return {"address": self.address, "hash": self.hash, **self.plan.as_dict()}


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
            return [*PlanView(report.address, report.hash, report.plan).lines(), "dry run: nothing was changed"]
        done = {
            Ending.CONFIRMED: f"{report.to_version} is running and confirmed",
            Ending.ON_TRIAL: f"{report.to_version} is running on trial: confirm it, or the next reset goes back",
            Ending.UPLOADED: f"{report.to_version} is in slot {report.plan.slot}",
        }
        facts = [duration_text(report.elapsed_s)]
        if report.bytes_sent:
            rate = f" at {rate_text(report.bytes_per_s)}" if report.bytes_per_s else ""
            facts.append(size_text(report.bytes_sent) + rate)
        return [f"done: {done.get(report.ending, report.summary)} ({', '.join(facts)})"]


@cli_command(
    Argument(
        "file", "the image: a signed .bin or .hex, a package (dfu_application.zip) or a build directory", type=Path
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
    Option("--allow-downgrade", "Do not warn of a version that is older than the running one.", type=bool),
    Option("--trim", "Send a padded file (imgtool --pad, --confirm) without its padding.", type=bool),
    Option("--image", "Number of the image (core) [default: what the file says, or 0].", type=int, metavar="N"),
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

    Examples:
      mcumgrx dfu app.signed.bin -d /dev/ttyACM0
      mcumgrx dfu app.signed.bin -d serial:/dev/ttyACM0,baud=1000000
      mcumgrx dfu app.signed.bin -d sim:desk,state=device.json --dry-run
      mcumgrx dfu build/dfu_application.zip --image 1 -d /dev/ttyACM0

    Interrupted? The same command again reads the device and goes on from there.
    """,
)
async def dfu(context: Context, file: Path, image: int | None, dry_run: bool, **options: Any) -> DfuResult:
    """Bring the image in FILE onto a device, and prove that it runs.

    The file is checked, the device is read, and the plan is shown before anything is touched. Then: upload, mark for
    a test boot, reset, wait for the device to return, prove that the new image is the active one, confirm it. What is
    done already is not done again.
    """
    from ..flows import update

    policy = _policy(image=image or 0, **options)
    device = context.device
    chosen = await _inspect(file, image, context)
    loaded, policy = chosen.image, replace(policy, image=chosen.number)
    listener = _Listener(context, device.address, loaded.hash.hex(), dry_run)
    report = await update(device, loaded, policy, listener, on_plan=listener.on_plan)
    return DfuResult(report, dry_run)


def _policy(**options: Any) -> DfuPolicy:
    """The policy that these options make, which are passed under their names without dashes."""
    from ..flows import DfuPolicy, Mode, Unconfirmed
    from ..flows.policy import InvalidPolicy

    fields = {field: options[option[2:].replace("-", "_")] for field, option in _OPTION_OF.items()}
    fields["mode"], fields["if_unconfirmed"] = Mode(fields["mode"]), Unconfirmed(fields["if_unconfirmed"])
    try:
        return DfuPolicy(**fields)
    except InvalidPolicy as error:
        raise UsageError(f"{_OPTION_OF[error.field]} {error.requirement}") from error


async def _inspect(file: Path, number: int | None, context: Context) -> PackageImage:
    from time import monotonic

    from ..mcuboot import load_package
    from ..threads import in_thread

    begin_s = monotonic()
    name = file.name or str(file)
    context.progress(Stage(StageName.INSPECT, f"checking {name}"))
    package = await in_thread(load_package, file)  # which may be a pipe, or on a share that hangs
    chosen = package.choose(number)
    image = chosen.image
    told = f"{chosen.name}, image {chosen.number}: " if chosen.name else ""
    text = f"{name}: {told}{image.version}, {size_text(image.size)}, hash {image.hash.hex()[:8]}"
    context.progress(Stage(StageName.INSPECT, text, finished=True, elapsed_s=monotonic() - begin_s))
    for note in package.notes:
        context.progress(Note(note))
    for warning in (*image.warnings, *package.told_of(chosen)):
        context.progress(Note(warning, warning=True))
    return chosen


class _Listener:
    """Passes the flow's events on; what concerns the plan is held back until the plan itself has been shown."""

    def __init__(self, context: Context, address: str, hash: str, dry_run: bool) -> None:
        self._context = context
        self._address = address
        self._hash = hash
        self._dry_run = dry_run
        self._held: list[Note] | None = None

    def __call__(self, event: Event) -> None:
        if self._held is not None and isinstance(event, Note):
            self._held.append(event)
            return
        self._context.progress(event)
        if isinstance(event, Stage) and event.name is StageName.PLAN and event.finished:
            self._held = []

    async def on_plan(self, plan: Any) -> bool:
        held, self._held = self._held or [], None
        if plan.steps and not self._dry_run:
            self._context.show("plan", PlanView(self._address, self._hash, plan))
        for note in held:
            if plan.steps or note.warning:  # without steps the note is the result
                self._context.progress(note)
        return not self._dry_run
