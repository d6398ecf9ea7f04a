"""A client of the scripted head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.testing.http_client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.scripted_server import ScriptedRay


@pytest.fixture
def client(scripted_ray: ScriptedRay) -> Iterator[Client]:
    client = Client(scripted_ray)
    yield client
    client.connection.close()
