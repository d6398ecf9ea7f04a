"""Airflow connections of type ``ray_jobs``, and what is read of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_rayjobs.cluster.connection import ClusterConnection, read_connection
from airflow_provider_rayjobs.exceptions import RayConnectionConfigError


def airflow_connection(extra: Any = None, **fields: Any) -> Any:
    """Return an Airflow connection with this extra: JSON text, or what is made JSON of."""
    text = extra if extra is None or isinstance(extra, str) else json.dumps(extra)
    return Connection(conn_id="ray_x", conn_type="ray_jobs", extra=text, **fields)


def read(extra: Any = None, environ: dict[str, str] | None = None, **fields: Any) -> ClusterConnection:
    """Read a connection, in an empty environment by default."""
    return read_connection("ray_x", airflow_connection(extra, **fields), environ or {})


def token(value: str) -> dict[str, str]:
    """Return the headers that carry a token."""
    return {"Authorization": f"Bearer {value}", "X-Ray-Authorization": f"Bearer {value}"}


def refusal(field: str, extra: Any = None, environ: dict[str, str] | None = None, **fields: Any) -> str:
    """Read what is wrong; the message names the connection and the field."""
    with pytest.raises(RayConnectionConfigError) as caught:
        read(extra, environ, **fields)
    assert (caught.value.conn_id, caught.value.field) == ("ray_x", field)
    assert str(caught.value).startswith(f"Connection 'ray_x', field {field!r}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)
