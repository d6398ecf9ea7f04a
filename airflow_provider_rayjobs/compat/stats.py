"""Airflow's Stats, which sends metrics to StatsD, Datadog or OpenTelemetry, as Airflow is configured."""

from __future__ import annotations

import importlib
from typing import Any

from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple


def airflow_stats(*, in_triggerer: bool) -> Any:
    """
    Return the ``Stats`` that this process has set up.

    From 3.2 on, Airflow has it twice: a task's process sets up that of the Task SDK, the triggerer that of the core.

    :raises ImportError: this Airflow has none where it is known to be.
    """
    if get_base_airflow_version_tuple() < (3, 2, 0):
        name = "airflow.stats"  # not common.compat's: its older releases have none
    else:
        name = "airflow.observability.stats" if in_triggerer else "airflow.sdk.observability.stats"
    return importlib.import_module(name).Stats


def airflow_hostname() -> str:
    """Return what Airflow calls this host, as the tag of its own ``triggers.running`` does. This may ask the DNS."""
    from airflow.utils.net import get_hostname

    return str(get_hostname())  # type: ignore[no-untyped-call]  # of Airflow
