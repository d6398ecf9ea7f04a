"""A typed function on Ray: editors complete the arguments of ``@ray_job``, and type checkers check calls of it."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_rayjobs.decorators import ray_job

with DAG("ray_job_typed", schedule=None):

    @ray_job(entrypoint_num_cpus=1, job_timeout=600, retries=2)
    def estimate_pi(samples: int, *, seed: int = 0) -> float:
        """Estimate pi."""
        import random

        generator = random.Random(seed)
        inside = sum(generator.random() ** 2 + generator.random() ** 2 <= 1 for _ in range(samples))
        return 4 * inside / samples

    @task
    def average(estimates: Any) -> float:
        """Return the mean of the estimates."""
        return fmean(estimates)

    average(estimate_pi.partial(samples=100_000).expand(seed=[1, 2, 3]))
    estimate_pi.override(task_id="one_more", retries=0)(50_000, seed=4)
