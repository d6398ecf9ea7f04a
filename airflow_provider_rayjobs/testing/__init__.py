"""
A pytest plugin for people who test their DAGs: a scripted Ray head, and a connection to it.

In the ``conftest.py`` beside your tests::

    pytest_plugins = ["airflow_provider_rayjobs.testing"]

It is not loaded by itself, so that no other test run pays for it. It needs pytest; nothing else in the provider does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.testing.head import JobScript, ScriptedRayHead, SubmittedJob

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JobScript", "ScriptedRayHead", "SubmittedJob", "scripted_ray_head"]


@pytest.fixture
def scripted_ray_head(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedRayHead]:
    """
    A scripted head, to which the connection ``ray_default`` leads during the test, past any proxy of this machine.

    For another connection, set ``AIRFLOW_CONN_…`` to what :meth:`ScriptedRayHead.connection` returns.
    """
    with ScriptedRayHead() as head:
        monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", head.connection())
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, ",".join(filter(None, [os.environ.get(name), "127.0.0.1"])))
        yield head
