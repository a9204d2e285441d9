"""How a device is named: `SCHEME:TARGET[,key=value…]`; parsing and `str()` are inverse.

::

    ble:Widget                        sim:desk,state=device.json
    serial:/dev/ttyACM0,baud=115200   udp:192.0.2.7:1337
    usb:2fe3:0004                     /dev/ttyACM0  (a bare port path is serial)

A comma or percent sign inside a part is written as a percent escape (`%2C`, `%25`); any other character may be. `str()`
escapes whatever a shell would take for itself, so that a printed address can be pasted unquoted. What a target and
its options mean is the business of the transport.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import quote, unquote

from .errors import UsageError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_KEY = re.compile(r"[a-z][a-z0-9_-]*")
_ENDPOINT = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^\[\]:]+))(?::(?P<port>[^:]*))?")
_BARE_PORT = re.compile(r"/.+|(\\\\\.\\)?COM[0-9]+", re.IGNORECASE)
_SAFE = "/:._-+@="  # besides letters, digits and "_.-~": harmless unquoted in POSIX shells, cmd and PowerShell
_IPV4 = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3})(:\d+)?")
_IPV6 = re.compile(r"\[?((?:[0-9a-f]{0,4}:){2,7}[0-9a-f.]{0,15}(?:%\w+)?)\]?((?<=\]):\d+)?", re.IGNORECASE)
_NETWORK_NAME = re.compile(r"([a-z0-9-]+(?:\.[a-z0-9-]+)+|localhost)(:\d+)?", re.IGNORECASE)
_BLE_ADDRESS = re.compile(r"[0-9a-f]{2}([:-][0-9a-f]{2}){5}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_USB_ID = re.compile(r"(?:0x)?([0-9a-f]{4}):(?:0x)?([0-9a-f]{4})", re.IGNORECASE)
_PORT_NAME = re.compile(r"(?:/?dev/)?((?:tty|rfcomm|cu\.|cuau?|cuaU|ttys|pts/)[\w.-]*|serial/by-\w+/.+)")
_COM = re.compile(r"COM ?([0-9]*):?", re.IGNORECASE)
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE)
_OPTIONS_AS_TARGET = re.compile(r"([^=]*?)[\s;?&:]*\b([a-z][a-z0-9_-]*)=(.*)", re.DOTALL)
_FORMS = "use SCHEME:TARGET[,key=value], for example ble:Widget, serial:/dev/ttyACM0,baud=115200 or sim:"


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed device address. `options` keep their order; `Address.parse(str(address)) == address`."""

    scheme: str
    target: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def __hash__(self) -> int:
        return hash((self.scheme, self.target, tuple(self.options.items())))

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address as a person types it.

        Raises `UsageError` where there is no scheme, an option has no key or value, or a key comes twice.
        """
        text = text.strip()
        if _BARE_PORT.fullmatch(text.split(",", 1)[0]):
            text = "serial:" + text
        scheme, colon, rest = text.partition(":")
        scheme = scheme.lower()
        if not colon or not _SCHEME.fullmatch(scheme):
            raise UsageError(f"{text!r} is not a device address", hint=meant_address(text) or _FORMS)
        if rest.startswith("//") and (meant := meant_address(text)) is not None:
            raise UsageError(f"{text!r} is not a device address", hint=meant)
        target, *pairs = rest.split(",")
        options: dict[str, str] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            key = key.strip().lower()
            if not equals or not _KEY.fullmatch(key):
                raise UsageError(
                    f"{pair!r} in the address {text!r} is not key=value",
                    hint="write a comma inside a name as %2C",
                )
            if key in options:
                raise UsageError(f"{key!r} is given twice in the address {text!r}")
            options[key] = _unescape(value, text)
        return cls(scheme, _unescape(target, text), options)

    def endpoint(self, default_port: int | None = None) -> tuple[str, int]:
        """The target as host and port: `HOST:PORT`, `[IPV6]:PORT`, or without the port where there is a default.

        Raises `UsageError` where it is none of these.
        """
        found = _ENDPOINT.fullmatch(self.target)
        example = f"{self.scheme}:192.0.2.7" + (":1234" if default_port is None else "")
        if found is None:
            if self.target.count(":") > 1:
                example = f"{self.scheme}:[{self.target.strip('[]')}]"
            raise UsageError(f"{self} does not name a host and a port", hint=f"for example {example}")
        host, port = found["ipv6"] or found["host"], found["port"]
        if port is None and default_port is not None:
            return host, default_port
        if port is None:
            raise UsageError(f"{self} names no port", hint=f"for example {example}")
        if not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 0xFFFF:
            raise UsageError(f"{port!r} in {self} is not a port", hint="a port is a number from 1 to 65535")
        return host, int(port)

    def __str__(self) -> str:
        parts = [f"{self.scheme}:{_escape(self.target)}"]
        parts += [f"{key}={_escape(value)}" for key, value in self.options.items()]
        return ",".join(parts)


def meant_address(text: str) -> str | None:
    """A hint with the address that `text` may stand for, which is half a one or looks like one of another program."""
    text, _, options = text.strip().partition(",")
    behind = f",{options}" if options else ""
    if (url := _URL.fullmatch(text)) and url[1].lower() not in ("http", "https", "ftp", "file"):
        rest = url[2].rstrip("/")
        place = f"/{rest.lstrip('/')}" if rest.startswith("/") else rest
        return f"an address has no slashes behind its colon: {url[1].lower()}:{place}{behind}"
    if _BLE_ADDRESS.fullmatch(text):
        address = text.replace("-", ":").upper() if len(text) == 17 else text
        return f"for a Bluetooth LE device it is ble:{address}{behind}"
    if found := _USB_ID.fullmatch(text):
        return f"for a USB device by vendor and product it is usb:{found[1].lower()}:{found[2].lower()}{behind}"
    if found := _PORT_NAME.fullmatch(text):
        return f"for a serial port it is serial:/dev/{found[1]}{behind}"
    if found := _IPV4.fullmatch(text) or _NETWORK_NAME.fullmatch(text):
        serial = f"; for a serial line behind a terminal server, tcp:{found[1]}{found[2] or ':PORT'}"
        return f"for a device on the network it is udp:{found[1]}{found[2] or ''}{behind}{serial}"
    if found := _IPV6.fullmatch(text):
        return f"for a device on the network it is udp:[{found[1]}]{found[2] or ''}{behind}"
    if found := _COM.fullmatch(text):
        if found[1]:
            return f"for a serial port it is serial:COM{found[1]}{behind}"
        return "a serial port has a number, as in serial:COM3; 'mcumgrx scan' lists those that there are"
    if text.lower() == "sim":
        return f"for a simulated device it is sim:{behind}"
    if text.lower() in ("ble", "serial", "uart", "usb", "tcp", "udp"):
        return f"which one? Behind {text.lower()}: comes its name; 'mcumgrx scan' lists what there is"
    if re.fullmatch(r"[\w .()-]+", text) and not options:
        shown = _escape(text)
        return f"what kind of device is it? ble:{shown} is one by its Bluetooth name, udp:{shown} one on the network"
    return None


def _unescape(text: str, whole: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise UsageError(f"the percent escapes in the address {whole!r} are not UTF-8") from error


def _escape(text: str) -> str:
    # Letters of any alphabet are left readable; quote() alone would escape every non-ASCII one.
    return "".join(char if char.isalnum() else quote(char, safe=_SAFE) for char in text)


class OptionReader:
    """Reads the options of an address one by one, then complains about those that nobody asked for.

    ::

        options = OptionReader(address)
        baud = options.integer("baud", 115200, minimum=1)
        options.finish()

    Every method raises `UsageError` naming the option and what it takes.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._known: list[str] = []

    def text(self, key: str, default: str) -> str:
        self._known.append(key)
        return self._address.options.get(key, default)

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(key, default)
        if value not in choices:
            raise self._bad(key, value, f"one of {', '.join(choices)}")
        return value

    def integer(self, key: str, default: int, *, minimum: int = 0, maximum: int = 2**32 - 1) -> int:
        value = self.text(key, str(default))
        try:
            number = int(value, 0)
        except ValueError:
            raise self._bad(key, value, "a whole number") from None
        if not minimum <= number <= maximum:
            raise self._bad(key, value, f"a number from {minimum} to {maximum}")
        return number

    def number(self, key: str, default: float, *, minimum: float = 0.0, maximum: float = 1e9) -> float:
        value = self.text(key, repr(default))
        try:
            number = float(value)
        except ValueError:
            raise self._bad(key, value, "a number") from None
        if not minimum <= number <= maximum:  # also refuses NaN
            raise self._bad(key, value, f"a number from {minimum:g} to {maximum:g}")
        return number

    def flag(self, key: str, default: bool) -> bool:
        value = self.choice(key, "yes" if default else "no", ("yes", "no", "true", "false", "on", "off", "1", "0"))
        return value in ("yes", "true", "on", "1")

    def finish(self) -> None:
        """Raise `UsageError` for an option that none of the calls above has read."""
        self._find_lost_comma()
        for key in self._address.options:
            if key not in self._known:
                known = ", ".join(sorted(self._known)) or "none"
                raise UsageError(
                    f"{self._address.scheme}: does not know the option {key!r}", hint=f"its options are: {known}"
                )

    def _find_lost_comma(self) -> None:
        """An option that stands where the target is, or at its end, would be taken for a part of a name."""
        address = self._address
        found = _OPTIONS_AS_TARGET.fullmatch(address.target)
        if found is None or found[2] not in self._known:
            return
        options = {found[2]: found[3], **address.options}
        meant = Address(address.scheme, found[1].strip(), options)
        raise UsageError(f"{address} lacks a comma before {found[2]}={found[3]}", hint=f"write {meant}")

    def _bad(self, key: str, value: str, takes: str) -> UsageError:
        return UsageError(f"the option {key}={value!r} of {self._address.scheme}: is not {takes}")
