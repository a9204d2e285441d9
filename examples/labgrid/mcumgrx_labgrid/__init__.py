"""`McumgrxDriver`: SMP at a serial port of a labgrid target, be it at this computer or at an exporter."""

import attr
from labgrid.driver.common import Driver
from labgrid.driver.exception import ExecutionError
from labgrid.exceptions import InvalidConfigError
from labgrid.factory import target_factory
from labgrid.resource import NetworkSerialPort, SerialPort
from labgrid.step import step
from labgrid.util.proxy import proxymanager

import mcumgrx


@target_factory.reg_driver
@attr.s(eq=False)
class McumgrxDriver(Driver):
    """Binds to a serial port: `RawSerialPort`, `USBSerialPort`, or one that an exporter serves as raw TCP.

    Arguments:
        image (str): key in `images` of the environment, for `update`.
        options (dict): options of the mcumgrx address, such as `framing: raw`.
        timeout (float): seconds for an ordinary answer; default: those of mcumgrx.

    While it is active, `device` is the device as `mcumgrx.open` gives it, with all command groups. The port is opened
    when it is first needed, and is free again after `close` and when the driver is deactivated.
    """

    bindings = {"port": {SerialPort, NetworkSerialPort}}  # noqa: RUF012 - as labgrid has it

    image = attr.ib(default=None, validator=attr.validators.optional(attr.validators.instance_of(str)))
    options = attr.ib(factory=dict, validator=attr.validators.instance_of(dict))
    timeout = attr.ib(default=None, validator=attr.validators.optional(attr.validators.instance_of((int, float))))

    def __attrs_post_init__(self):
        super().__attrs_post_init__()
        self.device = None

    @property
    def address(self):
        """The device as mcumgrx names it."""
        options = {key: str(value) for key, value in self.options.items()}
        if not isinstance(self.port, NetworkSerialPort):
            return str(mcumgrx.Address("serial", self.port.port, {"baud": str(self.port.speed), **options}))
        if self.port.protocol != "raw":
            raise InvalidConfigError(f"{self.port.protocol} is not supported: export the serial port with protocol raw")
        host, port = proxymanager.get_host_and_port(self.port)
        return str(mcumgrx.Address("tcp", f"[{host}]:{port}" if ":" in host else f"{host}:{port}", options))

    def on_activate(self):
        self.device = mcumgrx.open(self.address, timeout_s=self.timeout)

    def on_deactivate(self):
        self.close()
        self.device = None

    @Driver.check_active
    def close(self):
        """Give the port back, until it is needed again."""
        self.device.close()

    @Driver.check_active
    @step(args=["filename"], result=True)
    def update(self, filename=None, **policy):
        """Bring an image onto the device and prove that it runs.

        Arguments:
            filename: default: the image of the environment that `image` names.
            policy: fields of `mcumgrx.DfuPolicy`, such as `rollback=True`.

        Returns what happened, a `mcumgrx.Report`. Raises `ExecutionError` where the device was not brought to run it.
        """
        if filename is None:
            if self.image is None or self.target.env is None:
                raise InvalidConfigError("which image: name a file, or one of the environment in image")
            filename = self.target.env.config.get_image_path(self.image)
        try:
            return self.device.update(filename, mcumgrx.DfuPolicy(**policy))
        except mcumgrx.McumgrError as error:
            raise ExecutionError(f"{error}" + (f" ({error.hint})" if error.hint else "")) from error

    @Driver.check_active
    @step(args=["text"], result=True)
    def echo(self, text):
        """What the device sends back."""
        return self.device.os.echo(text)

    @Driver.check_active
    @step(result=True)
    def images(self):
        """Slots that hold an image: a tuple of `Slot`, with `slot`, `version`, `hash`, `active`, `confirmed`."""
        return self.device.image.state().slots

    @Driver.check_active
    @step()
    def reset(self):
        """Reset the device; it is not waited for."""
        self.device.os.reset()

    @Driver.check_active
    @step(args=["line"], result=True)
    def shell(self, line):
        """Run a command in the device's shell; its `text` and its `status`."""
        return self.device.shell.run_line(line)
