"""
Measures what importing each provider costs a DAG file, and its installed size.

Every environment has the same Airflow. A process imports Airflow's BashOperator, as in nearly every DAG folder, then
the provider's operator; the second import is measured. The size is that of the environment minus bare Airflow's.
"""

from __future__ import annotations

from pathlib import Path

import common

RUNS = 5

#: For each subject: its environment and its import.
SUBJECTS = {
    "bare Airflow": ("bench-airflow", "pass"),
    "airflow-provider-rayjobs": ("bench-ours", "from airflow_provider_rayjobs.operators import RaySubmitJobOperator"),
    "… and its first task": (
        "bench-ours",
        "from airflow_provider_rayjobs.operators import RaySubmitJobOperator as O; O(task_id='t', entrypoint='true')",
    ),
    "… its sensors": ("bench-ours", "from airflow_provider_rayjobs.sensors import RayJobSensor"),
    "… its decorator": ("bench-ours", "from airflow_provider_rayjobs.decorators import ray_job_task"),
    "astro-provider-ray": ("bench-astro", "from ray_provider.operators import SubmitRayJob"),
    "Google provider (Ray on Vertex AI)": (
        "bench-google",
        "from airflow.providers.google.cloud.operators.vertex_ai.ray import CreateRayClusterOperator",
    ),
    "Ray's SDK": ("bench-sdk", "from ray.job_submission import JobSubmissionClient"),
}

CODE = """
import json, resource, sys, time
from airflow.providers.standard.operators.bash import BashOperator
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
before, began, memory = cpu(), time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    {statement}
    error = ""
except Exception as e:
    error = repr(e)[:300]
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
print()
print(json.dumps(dict(error=error, wall_s=time.perf_counter() - began, cpu_s=cpu() - before, memory_mb=used / 1024)))
"""


def size_mb(env: str) -> float:
    """Return the size of an environment's libraries, without bytecode."""
    total = 0
    for path in (common.ROOT / ".envs" / env / "lib").rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc":
            total += path.stat().st_size
    return total / 1e6


def packages(env: str) -> int:
    """Return the number of distributions in an environment."""
    return len(list((common.ROOT / ".envs" / env / "lib").glob("python*/site-packages/*.dist-info")))


def own_size_mb() -> float:
    """Return the size of this provider itself, which its environment does not contain."""
    return sum(path.stat().st_size for path in (common.ROOT / "airflow_provider_rayjobs").rglob("*.py")) / 1e6


def run(env: str, statement: str) -> dict[str, float]:
    """Import once in a new process."""
    python_path = str(common.ROOT) if env == "bench-ours" else ""
    code = CODE.format(statement=statement)
    done: dict[str, float] = common.run_json(
        [common.python(env), "-W", "ignore", "-c", code],
        AIRFLOW_HOME=str(common.scratch()),
        **({"PYTHONPATH": python_path} if python_path else {}),
    )
    return done


def main() -> None:
    """Run all subjects in turn, several times, and print the medians."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in SUBJECTS}
    for name, (env, statement) in SUBJECTS.items():
        run(env, statement)  # warms the file cache
        assert Path(common.python(env)).exists(), name  # noqa: S101
    for _ in range(RUNS):
        for name, (env, statement) in SUBJECTS.items():
            runs[name].append(common.locked(run, env, statement))
    bare_size, bare_packages = size_mb("bench-airflow"), packages("bench-airflow")
    rows, figures = [], {}
    ours = common.median(runs["airflow-provider-rayjobs"], "cpu_s")
    for name, (env, _) in SUBJECTS.items():
        mine = env == "bench-ours"
        size = size_mb(env) - bare_size + (own_size_mb() if mine else 0.0)
        error = str(runs[name][0]["error"])
        cpu, wall = common.median(runs[name], "cpu_s"), common.median(runs[name], "wall_s")
        memory, more = common.median(runs[name], "memory_mb"), packages(env) - bare_packages + mine
        figures[name] = {
            "cpu_s": cpu, "wall_s": wall, "memory_mb": memory, "size_mb": size, "packages": more, "error": error,
            "runs": runs[name],
        }  # fmt: skip
        if error:
            rows.append([name, "does not import: " + error, "", "", "", "", round(size, 1), more])
        else:
            noise = f"±{common.spread(runs[name], 'cpu_s'):.0%}"
            rows.append([name, cpu, wall, cpu / ours, noise, memory, round(size, 1), more])
    headers = ("who", "import CPU s", "wall s", "÷ ours", "noise", "MB of memory", "MB on disk", "more packages")
    common.report("imports", "Import in a DAG file, and installed size", common.table(headers, rows), figures)


if __name__ == "__main__":
    main()
