"""The library `mcumgrx_robot` of Robot Framework: keywords for a device that speaks SMP."""

from robot.api import logger
from robot.api.deco import keyword, library
from robot.libraries.BuiltIn import BuiltIn, RobotNotRunningError

import mcumgrx
from mcumgrx.events import Note, Stage


@library(scope="SUITE", version="0.1.0")
class mcumgrx_robot:
    """Keywords for a device that speaks SMP (MCUmgr).

    | *** Settings ***
    | Library    mcumgrx_robot    serial:/dev/ttyACM0
    |
    | *** Test Cases ***
    | The release is installed
    |     Update    build/zephyr/zephyr.signed.bin
    |     Running Version Should Be    1.1.0

    Without an address it takes that of the variable ``${MCUMGRX_DEVICE}``, which ``robot --variable`` sets. The link is
    opened when it is first needed, and closed at the end of the suite.
    """

    def __init__(self, address: str | None = None, timeout: float | None = None):
        """``timeout`` are seconds for an ordinary answer; default: those of mcumgrx."""
        self.ROBOT_LIBRARY_LISTENER = self
        self.ROBOT_LISTENER_API_VERSION = 3
        self._address = address
        self._timeout_s = timeout
        self._opened = None

    def end_suite(self, data, result):  # a method of listeners
        self._close()

    def _close(self):
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _device(self):
        if self._opened is None:
            try:
                address = self._address or BuiltIn().get_variable_value("${MCUMGRX_DEVICE}")
            except RobotNotRunningError:  # it is asked for its attributes while its documentation is made
                address = None
            if not address:
                raise mcumgrx.UsageError(
                    "no device: give the library its address, or set ${MCUMGRX_DEVICE}, as in "
                    "robot --variable MCUMGRX_DEVICE:serial:/dev/ttyACM0"
                )
            self._opened = mcumgrx.open(address, timeout_s=self._timeout_s)
        return self._opened

    @keyword
    def use_device(self, address: str):
        """Go on with another device. ``sim:`` is a simulated one."""
        self._close()
        self._address = address

    @keyword
    def disconnect(self):
        """Close the link, so that another program can have it; the next keyword opens it again."""
        self._close()

    @keyword
    def update(self, file: str, **policy):
        """Bring an image onto the device and prove that it runs. Fails where the device does not run it in the end.

        ``policy`` are fields of ``mcumgrx.DfuPolicy``: | Update | app.bin | soak_s=${10} | rollback=${True} |
        """
        try:
            report = self._device.update(file, mcumgrx.DfuPolicy(**policy), _log)
        except mcumgrx.McumgrError as error:
            if error.hint:
                logger.info(f"hint: {error.hint}")
            raise
        return report.summary

    @keyword
    def echo(self, text: str) -> str:
        """What the device sends back."""
        return self._device.os.echo(text)

    @keyword
    def reset(self):
        """Reset the device; it is not waited for."""
        self._device.os.reset()

    @keyword
    def running_version(self, image: int = 0) -> str:
        """The version that runs, as the device writes it."""
        return self._running(image).version

    @keyword
    def running_version_should_be(self, version: str, image: int = 0):
        """Fails where another one runs, or this one only on trial."""
        slot = self._running(image)
        if slot.version != version:
            raise AssertionError(f"{slot.version} runs, not {version}")
        if not slot.confirmed:
            raise AssertionError(f"{version} runs, but is not confirmed")

    def _running(self, image):
        slot = self._device.image.state().active(image)
        if slot is None:
            raise AssertionError(f"the device lists no running image {image}")
        return slot

    @keyword
    def shell(self, line: str) -> str:
        """What a command of the device's shell writes. Fails where the command fails."""
        result = self._device.shell.run_line(line)
        if result.status:
            raise AssertionError(f"the command ended with {result.status}: {result.text}")
        return result.text

    @keyword
    def put_file(self, content: bytes, name: str):
        """Write a file of the device."""
        self._device.fs.upload(content, name)

    @keyword
    def get_file(self, name: str) -> bytes:
        """Read a file of the device."""
        return b"".join(self._device.fs.read(name))

    @keyword
    def read_setting(self, name: str) -> bytes:
        """The value of a setting, as bytes."""
        return self._device.settings.read(name).value

    @keyword
    def write_setting(self, name: str, value: bytes):
        """Change a setting."""
        self._device.settings.write(name, value)

    @keyword
    def read_statistics(self, group: str) -> dict:
        """The counters of a group of statistics, by name."""
        return dict(self._device.stat.read(group).counters)


def _log(event):
    if isinstance(event, Stage) and event.finished:
        logger.info(f"{event.name}: {event.text}")
    elif isinstance(event, Note):
        (logger.warn if event.warning else logger.info)(event.text)
