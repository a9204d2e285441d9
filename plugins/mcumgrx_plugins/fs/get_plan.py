"""The plan of a file's download. Whether the file is the same in the end, a hash tells."""

from __future__ import annotations

from collections.abc import Callable

from mcumgrx.plugin_api import ReadPlan, TransferStuck

from .messages import ReadFile
from .plan import FileDamaged


class FileGetPlan(ReadPlan):
    """The reading of the file `name`."""

    def __init__(
        self, name: str, deliver: Callable[[bytes], object], *, offset: int = 0, size: int | None = None
    ) -> None:
        super().__init__(lambda at: ReadFile(name, at), deliver, offset=offset, size=size)
        self.name = name

    def stuck(self, seconds: float) -> TransferStuck:
        error = super().stuck(seconds)
        error.message += " of the file"
        error.hint = "read it again with --resume; the device's log may tell more"
        return error

    def changed(self, how: str) -> FileDamaged:
        return FileDamaged(
            f"the file has changed while it was read: {how}",
            size=self.size,
            hint="read it again, when the application does not write to it",
        )
