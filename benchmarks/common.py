"""Helpers of the benchmarks: the machine, medians, tables, results."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tests.support.processes import Process

P = ParamSpec("P")
T = TypeVar("T")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"


def python(env: str) -> str:
    """Return the Python of an environment below .envs."""
    return str(ROOT / ".envs" / env / "bin" / "python")


def machine() -> dict[str, Any]:
    """Describe the machine and its current load."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d"),
    }


def median(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Return the median of one figure over several runs."""
    return statistics.median(row[key] for row in rows)


def spread(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Return half the range of one figure over several runs, as a share of its median: the noise."""
    values = [row[key] for row in rows]
    middle = statistics.median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    texts = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headers), *texts]) for column in range(len(headers))]
    lines = [[*headers], ["-" * width for width in widths], *texts]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def shown(value: object) -> str:
    """Return a figure with three significant digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def report(name: str, title: str, text: str, data: Any) -> None:
    """Print a table and store the figures."""
    print(f"\n## {title}\n\n{text}\n", flush=True)
    RESULTS.mkdir(exist_ok=True)
    kept = {"title": title, "machine": machine(), "table": text, "figures": data}
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def cpu_seconds(processes: Iterable[Process]) -> float:
    """Return the CPU time that processes have used."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(process: Process) -> float:
    """Return the memory of a process in MB; pages that it shares with others count in parts."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
    return 0.0


def run_json(command: Sequence[str], **env: str) -> Any:
    """Run a program and return the JSON in its last line; its errors are shown."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env={**clean, **env}, timeout=900)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


@contextlib.contextmanager
def scripted_head(**options: float) -> Iterator[str]:
    """Run the scripted head; yield its URL."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, str(HERE / "head.py"), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout  # noqa: S101
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


def asked(url: str) -> dict[str, Any]:
    """Return the number and the cost of the requests that a scripted head got."""
    with urllib.request.urlopen(f"{url}/bench") as answer:
        data: dict[str, Any] = json.load(answer)
    return data


@functools.cache
def scratch() -> Path:
    """Return a temporary folder of this run for Airflow's files."""
    folder = tempfile.mkdtemp(prefix="ray-jobs-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def airflow_path(home: Path) -> str:
    """Return the PYTHONPATH of an Airflow whose DAGs use modules of the benchmarks."""
    return os.pathsep.join(map(str, (home / "site", HERE, ROOT)))


def locked(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function; if BENCH_LOCK names a file, hold its lock, so that no other benchmark runs meanwhile."""
    path = os.environ.get("BENCH_LOCK")
    if not path:
        return work(*args, **kwargs)
    with Path(path).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return work(*args, **kwargs)
