"""Commands that leave a trace of every driver that ran, and what the cluster says of the jobs of a run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.ray_head import RayHead


def driver(trace: Path, work: float | Path, exit_code: int = 0) -> str:
    """Return a command that says hello, works and ends so, and notes its start and its end.

    The quotes tell what it says from the command, which logs show, too.

    :param work: seconds to work, or a file to work until it is there.
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
    """Return the jobs that the tasks of a DAG run submitted, the earliest first."""
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
