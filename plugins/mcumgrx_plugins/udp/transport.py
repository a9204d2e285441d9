"""`UdpTransport`: SMP over UDP, as Zephyr's `CONFIG_MCUMGR_TRANSPORT_UDP` serves it.

There is no connection: a device that is silent, restarting or gone looks the same, and only the system or an ICMP
message tells more. What they tell may be true for a moment only (Wi-Fi that roams, a server that restarts), so a
datagram that is refused or not sent counts as lost, as datagrams may be. Only what stays so ends the link.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from mcumgrx.plugin_api import (
    Address,
    ConnectFailed,
    DatagramFraming,
    Flow,
    Limits,
    LinkLost,
    OptionReader,
    Transport,
    resolve,
    system_says,
)

log = logging.getLogger("mcumgrx.udp")

_PORT = 1337  # CONFIG_MCUMGR_TRANSPORT_UDP_PORT

# CONFIG_MCUMGR_TRANSPORT_UDP_MTU is 1500 whatever the buffers are, and a datagram should not become IP fragments on
# Ethernet: 1500 less the headers of IP and UDP.
_MAX_MESSAGE = {socket.AF_INET: 1500 - 20 - 8, socket.AF_INET6: 1500 - 40 - 8}

# Devices with UDP have buffers of 2048 bytes by default, without it 384; 256 is the smallest that builds use.
_SAFE_MESSAGE = 256

_LIMITS = {
    family: Limits(safe_message=_SAFE_MESSAGE, max_message=max_message) for family, max_message in _MAX_MESSAGE.items()
}

# Datagrams that nobody has read; a client reads at once, so more are a flood, of which the rest is dropped.
_MAX_UNREAD = 256
_MAX_DATAGRAM = 0xFFFF

# How a system passes on the ICMP message "port unreachable". Windows: as a reset, or with a number that Python does not
# know.
_NOBODY_LISTENS = (ConnectionRefusedError, ConnectionResetError)
_ERROR_PORT_UNREACHABLE = 1234

# How long every error may go on before it is the end, counted from the first one since the device was heard: for a
# device that has answered on this link, which may be restarting, and for one that never has.
_PATIENCE_S = 5.0
_PATIENCE_UNHEARD_S = 1.5

# What did not reach a device that has never answered here, and so was not carried out, is sent again this soon, and
# then at twice the distance each time: a wrong port is told in a moment. Not more often: systems limit the ICMP
# messages that they send, Linux to six at once and one a second. Later a client's own repeats show whether it lasts.
_AGAIN_S = 0.1
_AGAIN_MOST_S = 1.0

# Should a socket have nothing but errors to tell, others want their turn, too.
_BREATH_S = 0.02

# Longer without an error than a system needs to report one (Linux: 3 s until a neighbour does not answer), and the
# trouble before has passed.
_PASSED_S = 6.0

_Where = tuple[socket.AddressFamily, tuple[Any, ...]]


class UdpTransport(Transport):
    """`udp:HOST[:PORT]`; an IPv6 address stands in brackets, `udp:[2001:db8::7]:1337`, and a link-local one names its
    interface, `udp:[fe80::7%25eth0]`.

    Of a name's addresses the first one to which a route leads is used; if that has never answered and goes on refusing,
    or cannot be reached, the next. Silence never ends the link.
    """

    quiet_after_reset_s: float = 1.0
    reaches_bootloader: bool = False

    def __init__(self, address: Address) -> None:
        self.address = str(address)
        self._host, self._port = address.endpoint(_PORT)
        OptionReader(address).finish()
        self._socket: _Socket | None = None
        self._deliver: Callable[[bytes], None] | None = None  # gets what arrives
        self._others: list[_Where] = []  # addresses of the host still to be tried
        self._tried: list[str] = []

    async def open(self, timeout_s: float) -> None:
        await self.close()
        self._deliver = None
        self._tried = []
        found = await resolve(self._host, self._port, socket.SOCK_DGRAM, timeout_s)
        places = [(family, where) for family, _, _, _, where in found if family in _MAX_MESSAGE]
        self._others = list(dict.fromkeys(places))
        self._socket = self._next_socket()

    async def close(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def offer(self, writes: Sequence[bytes]) -> bool:
        return self._usable().send_now(writes[0] if len(writes) == 1 else b"".join(writes))

    async def send(self, writes: Sequence[bytes]) -> None:
        await self._usable().send(b"".join(writes))

    def deliver_to(self, take: Callable[[bytes], None]) -> bool:
        self._deliver = self._usable().deliver = take
        return True

    async def receive(self) -> bytes:
        while True:
            opened = self._usable()
            data = await opened.read()
            if data is not None:
                return data
            if self._socket is None:
                raise LinkLost(f"{self._shown()} was closed")

    def given_up(self) -> None:
        if self._socket is not None:
            self._socket.awaited = 0

    @property
    def limits(self) -> Limits:
        return _LIMITS[self._socket.family if self._socket is not None else socket.AF_INET6]

    @property
    def flow(self) -> Flow:
        # What finds no buffer is dropped (measured), so one by one more may be on their way.
        return Flow.network("a path that loses and delays less: a cable, or better radio reception")

    @property
    def silence_hint(self) -> str | None:
        opened = self._socket
        if opened is None:
            return None
        if opened.trouble is not None and opened.trouble.since is not None:
            return f"the network says: {system_says(opened.trouble.error)}; check the address and the network"
        asked = "" if len(self._tried) == 1 and self._tried[0] == self._host else f" at {', '.join(self._tried)}"
        return f"{self._shown()} was asked{asked}: is it on, in this network, and is that the port of its SMP server?"

    def framing(self) -> DatagramFraming:
        return DatagramFraming()

    # -- addresses of the host -----------------------------------------------------------------------------------------

    def _next_socket(self) -> _Socket:
        failure: OSError | None = None
        while self._others:
            family, where = self._others.pop(0)
            self._tried.append(str(where[0]))
            try:
                return _Socket(family, where, self._in_trouble)
            except OSError as error:
                failure = failure or error
        raise ConnectFailed(
            f"no route leads to {self._named()}" + ("" if failure is None else f" ({system_says(failure)})"),
            hint=self._interface_hint() or "check the address, and that the network is up",
        ) from failure

    def _interface_hint(self) -> str | None:
        try:
            address = ipaddress.ip_address(self._host)
        except ValueError:
            return None
        if address.version == 6 and address.is_link_local and address.scope_id is None:
            return f"a link-local address needs an interface: udp:[{address}%25eth0]:{self._port}"
        return None

    def _in_trouble(self, opened: _Socket) -> None:
        """Called by a socket after each error; it has stayed so for long if that is the end."""
        if opened is not self._socket or opened.trouble is None:
            return
        if opened.heard or not self._others or not opened.trouble.lasts(opened.patience_s):
            return
        log.info("%s: %s; trying its next address", self._named(), system_says(opened.trouble.error))
        try:
            other = self._next_socket()
        except ConnectFailed:
            return  # there is none: this one's trouble is the end
        self._socket = other
        other.deliver = self._deliver
        opened.close()  # wakes `receive`, which goes on with the other
        if opened.unheard is not None:
            other.send_now(opened.unheard)

    # -- errors --------------------------------------------------------------------------------------------------------

    def _usable(self) -> _Socket:
        """The open socket. Raises `LinkLost` if there is none, or its trouble has lasted for too long."""
        opened = self._socket
        if opened is None:
            raise LinkLost(f"{self._shown()} is not open")
        if opened.trouble is not None and opened.trouble.lasts(opened.patience_s):
            raise self._ended(opened.trouble.error)
        return opened

    def _ended(self, error: OSError) -> LinkLost:
        if _refused(error):
            return LinkLost(
                f"{self._named()} refuses: nothing listens there",
                hint="check the port; a device that has just restarted may not serve it yet",
            )
        return LinkLost(
            f"{self._named()} cannot be reached: {system_says(error)}", hint="check the address and the network"
        )

    def _shown(self) -> str:
        return f"UDP port {self._port} of {self._host}"

    def _named(self) -> str:
        """The same, with all addresses that were tried, where there are several or the host is a name."""
        tried = ", ".join(self._tried)
        return self._shown() if tried == self._host or not tried else f"{self._shown()} ({tried})"


class _Trouble:
    """Errors in a row, without a word from the device in between.

    Attributes:
        since: when the row began; None when the last one has passed.
    """

    def __init__(self, error: OSError, now: float) -> None:
        self.error = error
        self.since: float | None = now
        self._last = now

    def again(self, error: OSError, now: float) -> None:
        if self.since is None or now - self._last > _PASSED_S:
            self.since = now
        self.error, self._last = error, now

    def lasts(self, patience_s: float) -> bool:
        """Whether the last error came as long after the first."""
        return self.since is not None and self._last - self.since >= patience_s


class _Socket:
    """One connected socket, thrown away when it has ended. Opening raises `OSError` where no route leads there.

    Sent through directly: the system takes a datagram at once or not at all. Watched by the event loop where it does
    that, else (Windows' proactor) read by a task. Not by asyncio's datagram endpoint, which on Windows stops reading
    after an error, or hides it (cpython gh-127057, gh-91227), and takes a turn of the loop for a datagram: uploads over
    loopback, in turns in one run, were 12.2 MB/s like this (56 µs of the processor for a chunk), 10.1 (64 µs) with the
    endpoint, 8.2 (66 µs) with `sock_recv_into` in a task on all systems; 7700, 7850 and 4500 echoes a second.

    Attributes:
        heard: a datagram has come from there.
        unheard: what was sent last, until one has come.
        awaited: so many datagrams more have been sent than have come.
        trouble: what the system says since then, of datagrams that were refused or not sent.
        deliver: gets what arrives; None: it is kept for `read`.
    """

    def __init__(
        self, family: socket.AddressFamily, where: tuple[Any, ...], in_trouble: Callable[[_Socket], None]
    ) -> None:
        self.family = family
        self.where = where
        self.heard = False
        self.unheard: bytes | None = None
        self.awaited = 0
        self.trouble: _Trouble | None = None
        self.deliver: Callable[[bytes], None] | None = None
        self._in_trouble = in_trouble
        self._loop = asyncio.get_running_loop()
        self._unread: deque[bytes] = deque()
        self._news: asyncio.Future[None] | None = None
        self._closed = False
        self._again: asyncio.TimerHandle | None = None
        self._again_s = _AGAIN_S
        self._reader: asyncio.Task[None] | None = None
        self._buffer = bytearray(_MAX_DATAGRAM)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(where)  # at once: it only chooses a route
            try:
                self._loop.add_reader(self._socket, self._readable)
            except NotImplementedError:
                self._reader = self._loop.create_task(self._read_on(), name="mcumgrx udp reader")
        except BaseException:
            self._socket.close()
            raise

    @property
    def patience_s(self) -> float:
        """How long its trouble may last."""
        return _PATIENCE_S if self.heard else _PATIENCE_UNHEARD_S

    # -- sending -------------------------------------------------------------------------------------------------------

    def send_now(self, data: bytes) -> bool:
        """Send, unless the system's buffer is full; what it refuses is lost."""
        if not self.heard:
            self.unheard = data
        try:
            self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._failed(error)
            if _refused(error):
                # An earlier datagram was. This one was not sent for that, and can be.
                with suppress(OSError):
                    self._socket.send(data)
        self.awaited += 1
        return True

    async def send(self, data: bytes) -> None:
        """Send as soon as the system takes it; what it refuses is lost."""
        if self.send_now(data):
            return
        try:
            await self._loop.sock_sendall(self._socket, data)
        except OSError as error:
            self._failed(error)

    # -- reading -------------------------------------------------------------------------------------------------------

    async def read(self) -> bytes | None:
        """The next datagram; None when it is closed, or its trouble has lasted."""
        while not self._unread:
            if self._closed or (self.trouble is not None and self.trouble.lasts(self.patience_s)):
                return None
            self._news = self._loop.create_future()
            try:
                await self._news
            finally:
                self._news = None
        return self._unread.popleft()

    def _readable(self) -> None:
        """Take what has arrived, but not for ever: others want their turn, too.

        Each message has one answer, so where none is awaited any more nothing is looked for, which costs a system call
        and an exception; what comes all the same is taken in the next turn of the loop.
        """
        buffer = self._buffer
        for _ in range(_MAX_UNREAD):
            if self._closed:
                return
            try:
                size = self._socket.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(error)
                return
            self._take(bytes(memoryview(buffer)[:size]))
            if self.awaited == 0:
                return

    async def _read_on(self) -> None:
        """As `_readable`, in a task."""
        while not self._closed:
            try:
                self._take(await self._loop.sock_recv(self._socket, _MAX_DATAGRAM))
            except OSError as error:
                self._failed(error)
                await asyncio.sleep(_BREATH_S)

    def _take(self, data: bytes) -> None:
        self.heard = True
        self.unheard = None
        if self.awaited:
            self.awaited -= 1
        if self.trouble is not None:
            self.trouble.since = None
        if data and self.deliver is not None:
            self.deliver(data)
        elif data and len(self._unread) < _MAX_UNREAD:
            self._unread.append(data)
            self._tell()

    # -- trouble -------------------------------------------------------------------------------------------------------

    def _failed(self, error: OSError) -> None:
        log.info("%s: %s", self.where[0], system_says(error))
        if error.errno == errno.EMSGSIZE:
            return  # the path carries less; that says nothing of other datagrams
        now = self._loop.time()
        if self._closed:
            return
        if self.trouble is None:
            self.trouble = _Trouble(error, now)
        else:
            self.trouble.again(error, now)
        if self._again is None and not self.heard:
            self._again = self._loop.call_later(self._again_s, self._send_again)
        self._in_trouble(self)
        self._tell()

    def _send_again(self) -> None:
        self._again = None
        if self.unheard is not None and not self._closed:
            self._again_s = min(_AGAIN_MOST_S, 2 * self._again_s)
            self.send_now(self.unheard)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        if self._reader is not None:
            self._reader.add_done_callback(lambda _: self._socket.close())  # not under what still reads
            self._reader.cancel()
        else:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def _refused(error: OSError) -> bool:
    return isinstance(error, _NOBODY_LISTENS) or getattr(error, "winerror", None) == _ERROR_PORT_UNREACHABLE
