"""The retry policy of both transports."""

from __future__ import annotations

from airflow_provider_rayjobs.client import retries


def test_the_waits_grow_to_a_few_seconds() -> None:
    found = [wait for wait, _ in zip(retries.absence_waits(), range(20), strict=False)]
    assert found[0] < 0.6
    assert 4.0 < found[-1] <= max(found) <= retries.LONGEST_ABSENCE_WAIT
