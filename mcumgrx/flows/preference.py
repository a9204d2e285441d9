"""What a device makes of the choice between two images, seen in its list: before the reset, and once all is done.

`requests` is the part that plans; here is the part that looks.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..contracts import Connection, ImageGroup
from ..errors import DeviceError, FlowError, Outcome, ProtocolError, RequestTimeout
from ..events import StageName
from ..hints import Hint, Run
from ..messages.standard import ImageState, Slot
from .device_state import shown_version
from .job import Job
from .plan import Look
from .verdict import Target, in_words

__all__ = ["Looking", "check_lasting", "not_preferred"]


class Looking:
    """The look before mark and reset: is the set complete, and what needs no mark shown for the next boot?"""

    def __init__(self, job: Job, steps: Sequence[tuple[Target, Look]]) -> None:
        self._job = job
        self._steps = steps

    async def run(self) -> None:
        job, names = self._job, in_words(target.name for target, _ in self._steps)
        with job.stage(StageName.MARK, f"seeing whether the next boot takes {names}") as stage:
            images = await job.list()
            for target, step in self._steps:
                staged = target.staged(images)
                if step.whole and staged is not None and not staged.bootable:
                    raise self._not_whole(target, staged)
                if step.pending and target.pending(images) is None:
                    raise self._postponed(target, images)
            be = "is" if len(self._steps) == 1 else "are"
            shown = f"{names} {be} shown for the next boot"
            whole = [target.name for target, step in self._steps if step.whole]
            stage.result = f"the set of {in_words(whole)} is complete" if whole else shown

    def _not_whole(self, target: Target, staged: Slot) -> FlowError:
        return FlowError(
            f"{target.name} is in slot {staged.slot}, and the device does not call it bootable: not all images that it "
            "names are in the slots beside it",
            stage=StageName.MARK,
            outcome=Outcome.REJECTED,
            slot=staged.slot,
            hint=Hint("nothing is marked. Bring all images of the build at once; see ", Run("image list")),
        )

    def _postponed(self, target: Target, images: ImageState) -> FlowError:
        staged, active = target.staged(images), target.active(images)
        runs = "the image that runs" if active is None else shown_version(active.version)
        where = "in the device" if staged is None else f"in slot {staged.slot}"
        return FlowError(
            f"{target.name} is {where}, and the device does not show it for the next boot: {runs} is to run again",
            stage=StageName.MARK,
            outcome=Outcome.REJECTED,
            slot=None if staged is None else staged.slot,
            hint=Hint(
                "its application prefers the slot that runs, as a boot request of the nRF Connect SDK can, or the file "
                "is linked for another slot. A preference may hold for one boot only: after ",
                Run("os reset"),
                " the same command goes on from here",
            ),
        )


async def not_preferred(job: Job, target: Target, slot: int) -> FlowError:
    """Take back what has been uploaded to try it, `slot` counted over all images; the error to raise."""
    active = target.active(await job.list())
    runs = "the image that runs" if active is None else shown_version(active.version)
    job.listed = None
    try:
        erased = await job.link.run(lambda connection: _erase(connection, slot, job.policy.erase_timeout_s))
    except (DeviceError, ProtocolError, RequestTimeout) as error:
        left, way = f"could not be erased again ({error})", Hint("erase it: ", Run("image erase", "--slot", str(slot)))
    else:
        way = Hint("build a file with a higher version")
        left = "is erased again" if erased is not False else "is still listed after its erase"
    return FlowError(
        f"the device does not take the mark for {target.name}, which is not newer than {runs}: it takes no boot "
        f"request. {target.name} {left}, and {runs} goes on running",
        stage=StageName.MARK,
        outcome=Outcome.REJECTED,
        slot=slot % 2,
        hint=way,
    )


async def _erase(connection: Connection, slot: int, timeout_s: float) -> bool | None:
    return await connection.group(ImageGroup).erase(slot, timeout_s=timeout_s)


def check_lasting(job: Job, images: ImageState) -> None:
    """Raise where the new image runs, and the list says that another one will after the next reset.

    So after a boot request that holds for one boot (nRF Connect SDK), and after a test boot with RAM load, whose list
    speaks of slots as if they were swapped (Zephyr's `img_mgmt_get_next_boot_slot`).
    """
    for target in job.targets.values():
        running, other = target.running(images), images.other(target.number)
        if running is None or other is None or not other.pending or other.hash == running.hash:
            continue
        back = f"{shown_version(other.version)}, in slot {other.slot}"
        raise FlowError(
            f"{target.name} runs, but not for good: the device shows {back}, for the next boot",
            stage=StageName.CONFIRM,
            outcome=Outcome.NOT_CONFIRMED,
            slot=other.slot,
            hint=Hint(
                "it was preferred for one boot only (a boot request of the nRF Connect SDK), or is on trial where only "
                "its own application can confirm it (RAM load; --mode confirm-only does without the trial). ",
                Run("image erase", "--slot", str(2 * other.image + other.slot)),
                " leaves no other image to boot, and no way back",
            ),
        )
