"""The driver of `examples/labgrid`, with the real labgrid, at a simulated device behind its kinds of serial ports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.sim.images import build_image

from ..support.labs import labgrid_driver
from ..support.served import Served, serving

pytestmark = pytest.mark.timeout(60)

Driver = labgrid_driver()

# What is skipped without it ends above.
from labgrid import Environment, Target  # noqa: E402
from labgrid.driver.exception import ExecutionError  # noqa: E402
from labgrid.exceptions import InvalidConfigError  # noqa: E402
from labgrid.resource import NetworkSerialPort, RawSerialPort, USBSerialPort  # noqa: E402

QUICK = "sim:,erase=0.1,boot=0.05,reset_delay=0.02,watchdog=0.1,unhealthy=1.9.9"


@pytest.fixture
def board() -> Iterator[Served]:
    with serving(QUICK, "--pty", "--tcp", "0", "--baud", "0", wanted=2) as served:
        yield served


@pytest.fixture
def image(tmp_path: Path) -> str:
    (tmp_path / "app.bin").write_bytes(build_image("1.1.0", payload_size=4000))
    return str(tmp_path / "app.bin")


def bound(kind: Any, **arguments: Any) -> Any:
    """A driver that is bound by hand to a port of this kind, and active."""
    target = Target("board")
    kind(target, name="port", **arguments)
    driver = Driver(target, name=None)
    target.activate(driver)
    return driver


def test_an_update_at_a_port_of_this_computer(board: Served, image: str) -> None:
    driver = bound(RawSerialPort, port=board.target("serial"), speed=115200)
    assert driver.address == f"serial:{board.target('serial')},baud=115200"
    assert driver.echo("hello") == "hello"
    assert driver.update(image).summary.startswith("1.1.0 runs and is confirmed")
    assert [(slot.version, slot.confirmed) for slot in driver.images() if slot.active] == [("1.1.0", True)]
    assert driver.shell("help").text
    assert driver.device.fs.size("/lfs1/hello.txt")
    driver.target.cleanup()
    assert driver.device is None


def test_an_update_at_a_port_of_an_exporter(board: Served, image: str) -> None:
    host, _, port = board.target("tcp").partition(":")
    driver = bound(NetworkSerialPort, host=host, port=int(port), protocol="raw")
    assert driver.address == f"tcp:{host}:{port}"
    driver.update(image)
    assert driver.images()[0].version == "1.1.0"
    driver.close()
    driver.reset()  # opens it again
    driver.target.cleanup()


def test_a_device_that_goes_back_is_a_failed_step(board: Served, tmp_path: Path) -> None:
    driver = bound(RawSerialPort, port=board.target("serial"), speed=115200)
    (tmp_path / "bad.bin").write_bytes(build_image("1.9.9", payload_size=4000))
    with pytest.raises(ExecutionError, match=r"1\.0\.0 "):
        driver.update(str(tmp_path / "bad.bin"))
    assert driver.images()[0].version == "1.0.0"
    driver.target.cleanup()


def test_an_environment_has_it_with_its_image(board: Served, image: str, tmp_path: Path) -> None:
    config = tmp_path / "env.yaml"
    config.write_text(
        f"""
targets:
  main:
    resources:
      RawSerialPort: {{port: {board.target("serial")}, speed: 115200}}
    drivers:
      McumgrxDriver: {{image: app, timeout: 3, options: {{framing: console}}}}
images:
  app: {image}
imports:
  - mcumgrx_labgrid
""",
        encoding="utf-8",
    )
    driver = Environment(str(config)).get_target("main").get_driver("McumgrxDriver")
    assert driver.address.endswith(",baud=115200,framing=console")
    assert driver.update(soak_s=0.1, rollback=True).summary.startswith("1.1.0 runs")
    driver.target.cleanup()


def test_a_usb_port_is_a_port(board: Served) -> None:
    target = Target("board")
    port = USBSerialPort(target, name="port", match={"ID_SERIAL_SHORT": "P-00-00682"})
    driver = Driver(target, name=None)
    port.port, port.avail = board.target("serial"), True  # as udev tells it
    target.activate(driver)
    assert driver.echo("hello") == "hello"
    target.cleanup()


def test_what_it_cannot_do_it_says() -> None:
    with pytest.raises(InvalidConfigError, match="rfc2217 is not supported: export the serial port with protocol raw"):
        bound(NetworkSerialPort, host="127.0.0.1", port=1, protocol="rfc2217")
    driver = bound(NetworkSerialPort, host="127.0.0.1", port=1, protocol="raw")
    with pytest.raises(InvalidConfigError, match="which image"):
        driver.update()
    driver.target.cleanup()
