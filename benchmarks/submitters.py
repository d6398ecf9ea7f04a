"""
Submits jobs and measures; run by `submission`, in the environment of its subject.

    python submitters.py ours --url http://127.0.0.1:1234 --number 20

The first submission of the process is the fresh one: the clock starts after the import of Airflow's BashOperator, and
the subject's own imports are included. The others are warm.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import uuid
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = "true"


class TaskInstance(SimpleNamespace):
    """Stands in for a task instance; unlike its base class, it can be weakly referenced."""


def ours(url: str, *, kept: bool = False) -> Callable[[], None]:
    """
    Run this provider's operator from the start of execute() to the accepted job.

    :param kept: whether all submissions share one connection to the head.
    """
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps({"conn_type": "ray_jobs", "host": url})
    from airflow_provider_rayjobs.operators import RaySubmitJobOperator

    numbers = count()
    run = uuid.uuid4().hex
    shared: list[Any] = []

    def submit() -> None:
        operator = RaySubmitJobOperator(
            task_id=f"t{next(numbers)}", entrypoint=COMMAND, ray_conn_id="bench", wait_for_completion=False
        )
        if shared and kept:
            operator.__dict__["hook"] = shared[0]
        ti = TaskInstance(
            dag_id="d", run_id=run, task_id=operator.task_id, map_index=-1, try_number=1, max_tries=0, start_date=None,
            task=operator, xcom_push=lambda key, value: None,
        )  # fmt: skip
        operator.execute({"ti": ti, "dag_run": SimpleNamespace(start_date=None)})  # type: ignore[typeddict-item]
        shared[:] = [operator.hook]

    return submit


def bare(url: str) -> Callable[[], None]:
    """Post with requests in one session, each time after one look-up."""
    import requests

    session = requests.Session()

    def submit() -> None:
        session.get(f"{url}/api/version", timeout=60).raise_for_status()
        body = {"entrypoint": COMMAND, "submission_id": f"bare-{uuid.uuid4().hex}", "metadata": {}}
        session.post(f"{url}/api/jobs/", json=body, timeout=60).raise_for_status()

    return submit


def sdk(url: str, *, kept: bool = False) -> Callable[[], None]:
    """Submit with Ray's own client: a new one for each submission, as in a task, or one for all."""
    from ray.job_submission import JobSubmissionClient

    clients: list[Any] = []

    def submit() -> None:
        if not (clients and kept):
            clients[:] = [JobSubmissionClient(url)]
        clients[0].submit_job(entrypoint=COMMAND, submission_id=f"sdk-{uuid.uuid4().hex}")

    return submit


SUBJECTS = {
    "ours": ours,
    "ours_kept": partial(ours, kept=True),
    "bare": bare,
    "sdk": sdk,
    "sdk_kept": partial(sdk, kept=True),
}


def main() -> None:
    """Print the seconds of each submission as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--number", type=int, default=1)
    args = parser.parse_args()
    from airflow.providers.standard.operators.bash import BashOperator  # noqa: F401

    logging.disable(logging.CRITICAL)
    taken, began = [], time.perf_counter()
    submit = SUBJECTS[args.subject](args.url)
    for _ in range(args.number):
        submit()
        taken.append(time.perf_counter() - began)
        time.sleep(0.02)
        began = time.perf_counter()
    sys.stdout.write("\n" + json.dumps(taken) + "\n")


if __name__ == "__main__":
    main()
