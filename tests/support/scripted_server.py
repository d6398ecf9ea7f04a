"""Names of :mod:`airflow_provider_rayjobs.testing.ray_server` under which the tests know them."""

from __future__ import annotations

from airflow_provider_rayjobs.testing.ray_server import (
    ScriptedRay,
    Tail,
)

__all__ = [
    "ScriptedRay",
    "Tail",
]
