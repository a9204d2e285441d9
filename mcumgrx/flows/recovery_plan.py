"""The part of a plan that MCUboot's serial recovery carries out: the file is written over the application, in place.

Pure, as `planner`. A recovery knows no trial and, in its usual builds, no marks; it writes whatever it is sent, and
what it has written is started by the next reset. So there is no way back, and what can be checked is checked before.
Sources: MCUboot `boot/boot_serial/src/boot_serial.c`, `boot/zephyr/Kconfig.serial_recovery`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..messages.standard import Slot
from .device_state import DeviceState, read_version, shown_version
from .fit import Fit
from .plan import EnterRecovery, Prove, Reset, Step, Upload
from .policy import Mode

__all__ = ["plan_recovery", "upload_number"]

# Of the network core in the recovery of an nRF5340, however it numbers its other images (sdk-nrf PR#8050).
_NETWORK_CORE = 3


def plan_recovery(fit: Fit, gate: Sequence[Step], *, enter: bool) -> list[Step]:
    """What is done with the file of `fit` in the recovery, and after it. Raises `PlanRefused`.

    `enter`: an application answers now, and the device is restarted into its recovery first. `gate`: what the new
    image has to stand once it runs.
    """
    policy, new = fit.policy, fit.new
    starts = policy.mode is not Mode.UPLOAD_ONLY
    if enter and not fit.state.reaches_bootloader:
        raise fit.refuse(
            f"{new} can only be brought by the bootloader's serial recovery, which is not reached over this link",
            "connect the serial port of the device, and name that with -d",
        )
    if policy.rollback:
        raise fit.refuse(
            f"{new} would stay whatever its health, so that --rollback cannot be kept",
            "leave it out: what is written over the application cannot be taken back",
        )
    held = None if enter else _primary(fit.state, fit.number)
    if held is not None and not policy.erase and _is_there(fit, held):
        steps: list[Step] = []
        if not starts:
            return steps
    else:
        _check(fit, held, enter=enter)
        steps = [Upload(fit.sent.size, 0, new, trimmed=fit.sent is not fit.image, in_place=True)]
        if enter:
            steps.insert(0, EnterRecovery())
    if not starts:
        if enter:
            fit.warnings.append(f"the device stays in its recovery: the next reset starts {new}")
        return steps
    _warn_of_swap(fit)
    return [*steps, Reset(), Prove(new, in_place=True), *gate]


def upload_number(number: int, state: DeviceState, *, network_core: bool = False) -> int:
    """What the upload to a recovery names, so that the primary slot of image `number` is written.

    In builds with `MCUBOOT_SERIAL_DIRECT_IMAGE_UPLOAD` that is 1 + 2 · image, and the image's own number would be
    another slot: only its slot information tells. Image 0 is 0 in every build.
    """
    if number == 0:
        return 0
    if network_core:
        return _NETWORK_CORE
    info = state.slot_info(number, 0)
    direct = 1 + 2 * number
    return direct if info is not None and info.upload_image_id == direct else number


def _primary(state: DeviceState, number: int) -> Slot | None:
    return next((slot for slot in state.images.slots if (slot.image, slot.slot) == (number, 0)), None)


def _is_there(fit: Fit, held: Slot) -> bool:
    """The primary slot holds the file already, or, where that is enough, its version."""
    if held.hash in fit.image.hashes_when_running:
        fit.notes.append(f"{fit.new} is already in slot 0: no upload")
        return True
    if fit.policy.ensure_version and read_version(held.version) == fit.image.version:
        fit.notes.append(f"{fit.new} is already in slot 0, as another build of that version: no upload")
        return True
    return False


def _check(fit: Fit, held: Slot | None, *, enter: bool) -> None:
    """What can be told of the file before it is written over the application."""
    fit.for_good(
        "the bootloader's serial recovery writes the file over the application: there is no way back, and until all "
        "of it is there nothing can run"
    )
    version = None if held is None else read_version(held.version)
    if held is not None:
        fit.notes.append(f"slot 0 holds {shown_version(held.version)}")
    if version is not None and fit.image.version <= version and fit.policy.upgrade_only:
        raise fit.refuse(
            f"{fit.new} is not newer than {shown_version(str(version))}, and only upgrades are wanted",
            "leave out --upgrade-only to install it all the same",
        )
    if fit.policy.mode is Mode.TEST_ONLY:
        fit.warnings.append(f"a recovery knows no test boot: {fit.new} stays")
    if fit.policy.erase:
        fit.notes.append("nothing is erased before: the upload does that")
    if not enter:  # otherwise that has been looked at
        fit.check_kind()
        fit.check_hash_type()
    fit.check_padding()
    fit.check_size()


def _warn_of_swap(fit: Fit) -> None:
    waiting = next((slot for slot in fit.state.images.slots if slot.image == fit.number and slot.pending), None)
    if waiting is not None and waiting.hash not in fit.image.hashes_when_running:
        fit.warnings.append(
            f"slot {waiting.slot} holds {shown_version(waiting.version)}, which the reset installs in its place"
        )
