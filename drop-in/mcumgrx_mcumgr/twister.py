"""`MCUmgr`: the helper of Zephyr's pytest-twister-harness, without a program behind it.

A fixture of a test suite's own takes the place of the harness's::

    from mcumgrx_mcumgr import MCUmgr

    @pytest.fixture()
    def mcumgr(dut):
        return MCUmgr.create_for_serial(dut.device_config.serial)

The methods have the names and arguments of the harness's. Like there the device is connected for each of them alone,
because between them the harness reads the same port. Unlike there what the device refuses is raised.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Self

from mcumgrx.blocking import BlockingDevice
from mcumgrx.errors import McumgrError

from . import commands
from .main import address_from, main

log = logging.getLogger("mcumgrx.twister")


class MCUmgrException(Exception):
    """What was asked for is not done; the cause is the `McumgrError`, where there is one."""


@dataclass
class MCUmgrImage:
    """One image of the list, as texts."""

    image: int
    slot: int
    version: str = ""
    flags: str = ""
    hash: str = ""


class MCUmgr:
    """A device by the options that the program `mcumgr` takes: `--conntype serial --connstring=/dev/ttyACM0`."""

    def __init__(self, connection_options: str) -> None:
        self.conn_opts = connection_options

    @classmethod
    def create_for_serial(cls, serial_port: str) -> Self:
        return cls(f"--conntype serial --connstring={shlex.quote(serial_port)}")

    @classmethod
    def create_for_ble(cls, hci_index: int, peer_name: str) -> Self:
        return cls(f"--conntype ble --hci {hci_index} --connstring=peer_name={shlex.quote(peer_name)}")

    @classmethod
    def is_available(cls) -> bool:
        return True

    def run_command(self, cmd: str) -> str:
        """What `mcumgr` prints for this command. Raises `MCUmgrException` where its exit code is not 0."""
        words = shlex.split(f"{self.conn_opts} {cmd}")
        log.info("mcumgr %s", shlex.join(words))
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = main(words)
        if code:
            raise MCUmgrException(errors.getvalue().strip() or output.getvalue().strip())
        return output.getvalue()

    def reset_device(self) -> None:
        with self._device("reset") as device:
            device.os.reset()

    def image_upload(self, image: str | PathLike[str], slot: int | None = None, timeout: float = 30) -> None:
        """`slot` is the number of the image, as in the harness."""
        settings = commands.Settings(timeout, image=slot)
        with self._device(f"image upload {image}", settings) as device:
            commands.upload(device, str(image), settings)

    def get_image_list(self) -> list[MCUmgrImage]:
        with self._device("image list") as device:
            slots = device.image.state().slots
        return [
            MCUmgrImage(slot.image, slot.slot, slot.version, commands.flags(slot), commands.hash_text(slot))
            for slot in slots
        ]

    def get_hash_to_test(self) -> str:
        """The hash of the first image that does not run."""
        return self._hash_without("active")

    def get_hash_to_confirm(self) -> str:
        """The hash of the first image that is not confirmed."""
        return self._hash_without("confirmed")

    def image_test(self, hash: str | None = None) -> None:
        wanted = commands.image_hash(hash or self.get_hash_to_test())
        with self._device("image test") as device:
            device.image.test(wanted)

    def image_confirm(self, hash: str | None = None) -> None:
        wanted = commands.image_hash(hash or self.get_hash_to_confirm())
        with self._device("image confirm") as device:
            device.image.confirm(wanted)

    def _hash_without(self, flag: str) -> str:
        images = self.get_image_list()
        for image in images:
            if flag not in image.flags.split():
                return image.hash
        raise MCUmgrException(f"there is no image that is not {flag}: {images}")

    @contextmanager
    def _device(self, doing: str, settings: commands.Settings = commands.Settings()) -> Iterator[BlockingDevice]:  # noqa: B008 - immutable
        log.info("%s (%s)", doing, self.conn_opts)
        try:
            with commands.opened(address_from(self.conn_opts), settings) as device:
                yield device
        except McumgrError as error:
            hint = f"\nhint: {error.hint}" if error.hint else ""
            raise MCUmgrException(f"{doing}: {error}{hint}") from error
