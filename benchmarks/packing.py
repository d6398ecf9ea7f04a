"""
Measures packing and uploading of local files, compared with Ray's own client, on one real head in one run.

    PYTHONPATH=. .envs/airflow-3.3/bin/python benchmarks/packing.py [--runs 3] [--address http://127.0.0.1:8265]

Each figure is the median over the runs. Each run has new files, and each side is measured in a new process: it imports
what it needs, then prepares a ``working_dir`` twice, as ``submit_job`` does before it submits. Needs Ray in a separate
environment (RAYJOBS_RAY_BIN, or `make envs`); starts a head unless ``--address`` is given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

MB = 1_000_000
MIB = 1024 * 1024

CASES = {
    "5,000 files, 50 MB of text": ("text", 5_000, 50 * MB),
    "one file of 80 MB of random bytes": ("random", 1, 80 * MB),
    "300 files, 300 MB of text": ("text", 300, 300 * MB),
}


HEADERS = ("files", "ours first s", "Ray s", "ratio", "ours again s", "Ray s", "ratio", "ours peak MiB", "Ray MiB")


def make_files(folder: Path, kind: str, count: int, size: int, seed: int) -> None:
    """Fill a folder; text is lines of Python's standard library, in an order that depends on the seed."""
    chance = random.Random(seed)  # noqa: S311
    lines = [] if kind == "random" else _lines()
    for number in range(count):
        place = folder / f"part{number % 50:02}"
        place.mkdir(parents=True, exist_ok=True)
        wanted = size // count
        if kind == "random":
            (place / f"{number}.bin").write_bytes(chance.randbytes(wanted))
            continue
        with (place / f"module_{number}.py").open("w") as file:
            while wanted > 0:
                start = chance.randrange(len(lines) - 20)
                text = "".join(lines[start : start + 20])[:wanted]  # as long as a short function
                wanted -= file.write(text)


def _lines() -> list[str]:
    found: list[str] = []
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        found += [line for line in path.read_text(errors="replace").splitlines(keepends=True) if line.isascii()]
    return found


def measure_ours(address: str, folders: list[str]) -> dict[str, Any]:
    """Prepare with this provider."""
    from airflow_provider_rayjobs.client import verbs
    from airflow_provider_rayjobs.client.requests_transport import RequestsTransport
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.packaging.stores import ClusterStore
    from airflow_provider_rayjobs.packaging.upload import prepare_runtime_env

    cluster = ClusterConnection("bench", address)
    transport = RequestsTransport(cluster)
    transport.run(verbs.get_version())
    store = ClusterStore(transport.run, cluster.upload_limit, address)
    return _measured(lambda folder: prepare_runtime_env({"working_dir": folder}, store), folders)


def measure_ray(address: str, folders: list[str]) -> dict[str, Any]:
    """Prepare with Ray's client."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(address)

    def prepare(folder: str) -> dict[str, Any]:
        runtime_env = {"working_dir": folder}
        client._upload_working_dir_if_needed(runtime_env)
        return runtime_env

    return _measured(prepare, folders)


def _measured(prepare: Any, folders: list[str]) -> dict[str, Any]:
    """Prepare a small folder, then the one to measure, twice."""
    small, folder = folders
    prepare(small)  # imports everything
    before = _reset_peak()
    seconds, error, uri = [], "", ""
    for _ in range(2):
        started = time.perf_counter()
        try:
            uri = prepare(folder)["working_dir"]
        except Exception as e:  # noqa: BLE001 - a refusal is a result, too
            error = f"{type(e).__name__}: {str(e)[:200]}"
            break
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "peak_mib": (_status("VmHWM") - before) / 1024, "error": error, "uri": uri}


def _reset_peak() -> int:
    """Reset the peak that the imports caused; return the current memory, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure(side: str, python: str, address: str, folders: list[Path]) -> dict[str, Any]:
    """Measure one side in a fresh process."""
    command = [python, __file__, "--side", side, "--address", address, *map(str, folders)]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root if side == "ours" else "", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_case(name: str, ray_python: str, address: str, number: int) -> dict[str, Any]:
    """Measure both sides on the same files; they take turns at being first."""
    base = Path(tempfile.mkdtemp(prefix="packing-"))
    try:
        sides = ["ray", "ours"] if number % 2 else ["ours", "ray"]
        make_files(base / "files", *CASES[name], seed=time.time_ns())
        found = {}
        for side in sides:
            (base / side).mkdir()
            (base / side / "small.txt").write_text(f"{side} {time.time_ns()}")
            python = ray_python if side == "ray" else sys.executable
            found[side] = measure(side, python, address, [base / side, base / "files"])
        return found
    finally:
        shutil.rmtree(base)


def median(runs: list[dict[str, Any]], side: str, which: int) -> float | None:
    """Return the median seconds of the first or the second preparation; None if it failed."""
    seconds = [run[side]["seconds"][which : which + 1] for run in runs]
    return statistics.median(one[0] for one in seconds) if all(seconds) else None


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one case's medians and ratios."""
    row: dict[str, Any] = {"case": name, "runs": runs}
    for side in ("ours", "ray"):
        row[side] = {
            "first_s": median(runs, side, 0),
            "second_s": median(runs, side, 1),
            "peak_mib": max(run[side]["peak_mib"] for run in runs),
            "error": runs[0][side]["error"],
        }
    for which in ("first_s", "second_s"):
        ours, ray = row["ours"][which], row["ray"][which]
        row[f"{which[:-2]}_ratio"] = ours / ray if ours and ray else None
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Return the cases as a table, followed by the refusals."""
    lines, refused = [], []
    for row in rows:
        cells = []
        for which in ("first_s", "second_s"):
            cells += [row[side][which] or "refused" for side in ("ours", "ray")] + [row[f"{which[:-2]}_ratio"] or "-"]
        lines.append([row["case"], *cells, *(f"+{row[side]['peak_mib']:.0f}" for side in ("ours", "ray"))])
        errors = {side: row[side]["error"] for side in ("ours", "ray") if row[side]["error"]}
        refused += [f"{row['case']}, {side}: {error.splitlines()[0]}" for side, error in errors.items()]
    return "\n\n".join([common.table(HEADERS, lines), *refused])


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one run")
    parser.add_argument("--address")
    parser.add_argument("--side", choices=("ours", "ray"), help=argparse.SUPPRESS)
    parser.add_argument("folders", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"ours": measure_ours, "ray": measure_ray}[options.side](options.address, options.folders)))
        return
    from tests.support.ray_head import RayHead, require_ray

    ray_bin = require_ray()
    # Ray deletes the uploads of a run before they fill the head's memory.
    variables = {"RAY_RUNTIME_ENV_TEMPORARY_REFERENCE_EXPIRATION_S": "60"}
    own = RayHead(num_cpus=1, env=variables, ray_bin=ray_bin, token="")
    with contextlib.nullcontext() if options.address else own as started:
        address = options.address or started.url
        ray_python = str(ray_bin.parent / "python")
        rows = []
        for name in CASES:
            runs = [
                run_case(name, ray_python, address, number) for number in range(1 if options.quick else options.runs)
            ]
            rows.append(summary(name, runs))
    common.report("packing", "Packing and uploading local files", table(rows), rows)


if __name__ == "__main__":
    main()
