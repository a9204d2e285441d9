"""How long a device is waited for that says "not now": the pauses, their bound, and when to say so.

`rc` 10 says that the request was not carried out, whatever it was, and that it is time to wait: a reset while another
core's image is written, a file that somebody else has open. SMP's own rule for it is to ask with growing pauses for 10
to 30 s. Nothing here reads a clock.
"""

from __future__ import annotations

# So long, counted from the first "busy"; nobody is busy for ever.
BUSY_S = 30.0

# Pauses are doubled up to the longest.
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0

# So long it goes without saying that the device is waited for.
_QUIET_S = 2.0


class Waiting:
    """How long a device has been waited for that says "not now", in one way or another."""

    def __init__(self, patience_s: float = BUSY_S) -> None:
        self.patience_s = patience_s
        self._since: float | None = None
        self._next_s = _FIRST_PAUSE_S
        self._told = False

    @property
    def began(self) -> bool:
        """Whether it has said so, and has not gone on since."""
        return self._since is not None

    def seconds(self, now: float) -> float:
        return 0.0 if self._since is None else now - self._since

    def pause_s(self, now: float) -> float | None:
        """How long to wait before it is asked again; None when the patience is at its end."""
        if self._since is None:
            self._since = now
        if now - self._since >= self.patience_s:
            return None
        pause_s = self._next_s
        self._next_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        return pause_s

    def tell(self, until: float) -> bool:
        """Whether to say, once, that the device is waited for, where that is known to last until then."""
        if self._told or self.seconds(until) < _QUIET_S:
            return False
        self._told = True
        return True

    def end(self) -> None:
        """It goes on."""
        self._since = None
        self._next_s = _FIRST_PAUSE_S
        self._told = False
