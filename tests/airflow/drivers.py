"""Commands of jobs that record each start and end in a file, and queries for the jobs of a DAG run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.ray_head import RayHead


def driver(trace: Path, work: float | Path, exit_code: int = 0) -> str:
    """Return a command that prints hello, waits, prints bye, exits, and records its start and end.

    The quotes distinguish its output from the command itself, which logs also show.

    :param work: seconds to wait, or a file to wait for.
    """
    wait = f"sleep {work}" if isinstance(work, (int, float)) else f"until [ -e {work} ]; do sleep 0.5; done"
    return (
        f"echo start >> {trace}; echo hello from the 'driver'; {wait}; echo bye from the 'driver'; "
        f"echo end >> {trace}; exit {exit_code}"
    )


def starts(trace: Path) -> int:
    """Return how many drivers started."""
    return _count(trace, "start")


def ends(trace: Path) -> int:
    """Return how many drivers ran to their end."""
    return _count(trace, "end")


def _count(trace: Path, word: str) -> int:
    return trace.read_text().split().count(word) if trace.exists() else 0


def jobs_of(head: RayHead, run_id: str) -> list[dict[str, Any]]:
    """Return the jobs that the tasks of a DAG run submitted, oldest first."""
    jobs = [job for job in head.jobs() if (job["metadata"] or {}).get("airflow_run_id") == run_id]
    return sorted(jobs, key=lambda job: job["start_time"] or 0)


def wait_statuses(head: RayHead, run_id: str, wanted: list[str], timeout: float) -> float:
    """Wait until the jobs of a run have these statuses, in the order of submission; return the seconds it took."""
    begun = time.monotonic()
    while True:
        found = [job["status"] for job in jobs_of(head, run_id)]
        if found == wanted:
            return time.monotonic() - begun
        assert time.monotonic() - begun < timeout, f"jobs of {run_id} are {found}, not {wanted}, after {timeout} s"
        time.sleep(0.2)
