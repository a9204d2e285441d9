"""A switch with which a program holds a transfer that is under way, and lets it go on."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger("mcumgrx.transfer")


class Pause:
    """Holds the transfers that it was given to. Used from the event loop in which they run.

    ::

        pause = Pause()
        uploading = asyncio.create_task(group.upload(image, UploadOptions(pause=pause)))
        ...
        pause.hold()    # what is on its way is still answered, and nothing more is sent
        pause.resume()

    The device keeps its place meanwhile; Zephyr closes a file after four idle seconds, and goes on with it all the
    same. A transfer that is held can be cancelled like any other.
    """

    def __init__(self) -> None:
        self.listeners: list[Callable[[], None]] = []
        """Called when it has been held or let go."""
        self._held = False

    @property
    def held(self) -> bool:
        return self._held

    def hold(self) -> None:
        """Send nothing more, until `resume`."""
        self._set(True)

    def resume(self) -> None:
        """Go on."""
        self._set(False)

    def _set(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            for tell in list(self.listeners):
                try:
                    tell()
                except Exception:  # of a program's own listener: the transfers must hear of it all the same
                    log.warning("a listener of a pause failed", exc_info=True)
