"""Which of Airflow's Stats is used, and what this host is called."""

from __future__ import annotations

import sys

import pytest
from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

from airflow_provider_rayjobs.compat.stats import airflow_hostname, airflow_stats


@pytest.mark.parametrize("in_triggerer", [False, True])
def test_stats_is_the_one_that_this_kind_of_process_sets_up(in_triggerer: bool) -> None:
    stats = airflow_stats(in_triggerer=in_triggerer)
    for name in ("incr", "timing", "gauge"):
        assert callable(getattr(stats, name))
    if get_base_airflow_version_tuple() < (3, 2, 0):
        module = "airflow.stats"
    else:
        module = "airflow.observability.stats" if in_triggerer else "airflow.sdk.observability.stats"
    assert stats is sys.modules[module].Stats


def test_the_host_is_called_as_airflow_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__HOSTNAME_CALLABLE", "platform.machine")
    import platform

    assert airflow_hostname() == platform.machine()
