"""One try of a task that kills its own process with SIGKILL at a given moment; run as a program by `test_kills`."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from airflow_provider_rayjobs.kuberay import KubeRayCluster
from airflow_provider_rayjobs.kubernetes import lease, manifest
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.support.tries import Tries

#: The least rights.
ROLE_OF_THE_DOCS = Path(__file__).parents[2] / "docs/examples/kuberay_role.yaml"


def die_at(target: str, when: str) -> None:
    """Replace a function by one that kills this process, before or after it is called."""
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *owners, name = path.split(".")
    for part in owners:
        owner = getattr(owner, part)
    function = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> None:
        if when == "after":
            function(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)


def tries_of(entrypoint: str, cluster: dict[str, Any], run_id: str, **arguments: Any) -> Tries:
    """Return the tries of a task with a cluster of its own."""

    def operator() -> RaySubmitJobOperator:
        own = KubeRayCluster(**cluster)
        return RaySubmitJobOperator(task_id="task", entrypoint=entrypoint, cluster=own, poll_interval=1.0, **arguments)

    return Tries(operator, run_id)


if __name__ == "__main__":
    lease.NOTICE_SECONDS = 5  # a cluster whose task has died stays for this time
    lease.RESULT_SECONDS = 5
    manifest.SUBMISSION_LEAST = 5  # and one that has no job, for this time after its start_timeout
    given = json.loads(sys.argv[1])
    die_at(given.pop("target"), given.pop("when"))
    tries_of(**given).run()
