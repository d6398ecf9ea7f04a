"""Jobs with text that no database can store, and one unrelated job."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

#: Prints a NUL and a byte that is not UTF-8, and fails.
FAILS = [
    "python",
    "-c",
    r"import os, sys; os.write(1, b'reason: \0 binary \xff\n'); sys.exit(3)",
]

with DAG("rj_any_text", schedule=None):
    for how, deferrable in (("sync", False), ("deferred", True)):
        RaySubmitJobOperator(task_id=f"fails_{how}", entrypoint=FAILS, deferrable=deferrable)

        @task.ray_job(task_id=f"tells_{how}", deferrable=deferrable)
        def tells():
            from airflow_provider_rayjobs.progress import progress

            name = b"file-\xff".decode(errors="surrogateescape")
            progress(1, 1, f"\0 {name}")
            return {"name": name, "nul\0": ["\0", {"half": "\ud83d"}]}

        @task.ray_job(task_id=f"outputs_{how}", deferrable=deferrable, multiple_outputs=True)
        def outputs():
            return {"plain": "x", "key\0": "value\0"}

        @task.ray_job(task_id=f"raises_{how}", deferrable=deferrable)
        def raises():
            raise ValueError("\0 " + b"\xff".decode(errors="surrogateescape"))

        @task.ray_job(task_id=f"counts_{how}", deferrable=deferrable)
        def counts():
            import time

            from airflow_provider_rayjobs.progress import progress, to_line

            print(to_line({"done": 10**40, "total": 10**41, "message": "by hand"}), end="", flush=True)
            time.sleep(2)
            progress(10**40, 10**40, "whole")

        tells()
        outputs()
        raises()
        counts()

    # Without the log, only Ray's message has the NUL.
    RaySubmitJobOperator(task_id="fails_quietly", entrypoint=FAILS, stream_logs=False, deferrable=False)

    RaySubmitJobOperator(task_id="bad_field", entrypoint="echo {{ '\\0' }}", metadata={"a": "{{ 'b\\0' }}"})

with DAG("rj_innocent", schedule=None):
    RaySubmitJobOperator(
        task_id="job", entrypoint="until [ -e {{ dag_run.conf['gate'] }} ]; do sleep 0.5; done", deferrable=True
    )
