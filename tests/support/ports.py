"""Names of :mod:`airflow_provider_rayjobs.testing.ports` under which the tests know them."""

from __future__ import annotations

from airflow_provider_rayjobs.testing.ports import (
    FIRST,
    LAST,
    free_port,
)

__all__ = [
    "FIRST",
    "LAST",
    "free_port",
]
