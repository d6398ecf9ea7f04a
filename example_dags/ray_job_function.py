"""Functions on Ray: a plain task makes shards, one Ray job per shard counts primes, and a plain task adds them up."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

with DAG("ray_job_function", schedule=None):

    @task
    def extract(limit: int, shards: int) -> list[list[int]]:
        """Cut the numbers below the limit into shards."""
        return [[limit * i // shards, limit * (i + 1) // shards] for i in range(shards)]

    # The body runs as the driver of a Ray job on another machine, so it must contain all that it needs.
    @task.ray_job
    def count_primes(shard: list[int]) -> Any:
        """Count the primes of a shard."""
        import ray

        from airflow_provider_rayjobs.job import progress

        @ray.remote
        def count(begin: int, end: int) -> int:
            return sum(n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(begin, end))

        begin, end = shard
        size = (end - begin) // 8 + 1
        waiting = [count.remote(first, min(first + size, end)) for first in range(begin, end, size)]
        total, jobs = 0, len(waiting)
        while waiting:
            done, waiting = ray.wait(waiting)
            total += sum(ray.get(done))
            progress(jobs - len(waiting), jobs, f"{total} primes")
        return {"shard": shard, "primes": total}

    @task
    def combine(parts: Any) -> int:
        """Add up the primes of the shards."""
        for part in parts:
            print(f"{part['primes']} primes in {part['shard']}")
        return sum(part["primes"] for part in parts)

    combine(count_primes.expand(shard=extract(200_000, 2)))
