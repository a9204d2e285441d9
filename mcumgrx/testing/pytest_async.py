"""The fixture of `pytest_plugin` that needs pytest-asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio

if TYPE_CHECKING:
    from mcumgrx.client import Client
    from mcumgrx.testing.recording import Recording


@pytest_asyncio.fixture
async def mcumgrx_client(mcumgrx_address: str, mcumgrx_session: Recording) -> AsyncIterator[Client]:
    """The client connected to the device, as `mcumgrx.connect` gives it."""
    from mcumgrx.session import connect

    async with connect(mcumgrx_address) as client:
        yield client
