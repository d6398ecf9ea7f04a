"""
Measures what importing each provider costs a DAG file, and its installed size.

Every environment has the same Airflow. A process imports Airflow's BashOperator, as in nearly every DAG folder, then
the provider's operator, and makes its first task; only the second part is measured. The floor is what any operator
costs: an empty subclass of BaseOperator, and a first task of BashOperator. All modules are compiled, as after an
installation. The size is that of the environment minus bare Airflow's.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

import common

RUNS = 9

OWN = "airflow_provider_rayjobs"
OPERATOR = f"from {OWN}.operators import RaySubmitJobOperator as O"
FIRST_TASK = "O(task_id='t', entrypoint='true')"
SENSOR_TOO = f"from {OWN}.sensors import RayJobSensor as S; S(task_id='s', submission_id='x')"

#: For each subject: its environment and what it imports and makes.
SUBJECTS = {
    "bare Airflow": ("bench-airflow", "pass"),
    "a first task of BashOperator": ("bench-airflow", "BashOperator(task_id='t', bash_command='true')"),
    "… of an empty subclass of BaseOperator": (
        "bench-airflow",
        "from airflow.providers.common.compat.sdk import BaseOperator as B; type('E', (B,), {})(task_id='t')",
    ),
    "airflow-provider-rayjobs": ("bench-ours", OPERATOR),
    "… and its first task": ("bench-ours", f"{OPERATOR}; {FIRST_TASK}"),
    "… operators and sensors, a first task of each": ("bench-ours", f"{OPERATOR}; {FIRST_TASK}; {SENSOR_TOO}"),
    "… its decorator": ("bench-ours", f"from {OWN}.decorators import ray_job"),
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
    return sum(path.stat().st_size for path in (common.ROOT / OWN).rglob("*.py")) / 1e6


@functools.cache
def own_folder() -> Path:
    """Return a folder with a compiled copy of this provider, which its environment does not contain."""
    folder = common.scratch() / "ours"
    shutil.copytree(common.ROOT / OWN, folder / OWN, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([common.python("bench-ours"), "-m", "compileall", "-q", folder], check=True)
    return folder


def run(env: str, statement: str) -> dict[str, float]:
    """Import once in a new process."""
    python_path = str(own_folder()) if env == "bench-ours" else ""
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
    ours = common.median(runs["… and its first task"], "cpu_s")
    floor = common.median(runs["a first task of BashOperator"], "cpu_s")
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
            rows.append([name, "does not import: " + error, "", "", "", "", "", round(size, 1), more])
        else:
            noise = f"±{common.spread(runs[name], 'cpu_s'):.0%}"
            over = 1000 * (cpu - floor)
            rows.append([name, 1000 * cpu, over, cpu / ours, noise, 1000 * wall, memory, round(size, 1), more])
    headers = ("who", "CPU ms", "ms over BashOperator", "÷ ours", "noise", "wall ms", "MB of memory", "MB on disk",
               "more packages")  # fmt: skip
    common.report("imports", "Import in a DAG file, and installed size", common.table(headers, rows), figures)


if __name__ == "__main__":
    main()
