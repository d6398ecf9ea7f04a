"""What was sent is counted once."""

from __future__ import annotations

from airflow_provider_rayjobs.client.counts import Counts


def test_what_is_taken_is_not_counted_again() -> None:
    counts = Counts()
    counts.requests += 3
    counts.upload_bytes += 100
    counts.adopt()
    assert counts.take() == Counts(requests=3, upload_bytes=100, adopted=1)
    assert counts == Counts()
    counts.requests += 1
    assert counts.take() == Counts(requests=1)
