"""
Runs the tests of one lane: those that compute, or those that wait for processes of Airflow and Ray.

    python -m tests.lanes LANE RESULTS MARKS [OPTIONS of pytest]

The lanes `computes` and `waits` can run at the same time. The tests of `waits` share an Airflow, a Ray head and a
PostgreSQL, and several run in parallel. Tests that kill these shared services run last, one by one. The results are
written to the folder RESULTS, as JUnit XML.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.support import shared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Exit codes of pytest: a test failed; no test was selected.
TESTS_FAILED = 1
NO_TESTS = 5

#: On a busy machine a test or two may be too slow, so failed tests run again. More failures have another reason.
MOST_AGAIN = 5

#: The variable with the path of the file to which failed tests are written.
FAILED_VARIABLE = "RAYJOBS_TEST_FAILED"


class Part(NamedTuple):
    """
    One run of pytest.

    :param name: its name in the results.
    :param marks: selects the tests.
    :param workers: how many tests run in parallel; 0: without workers.
    :param nice: the nice value of its processes.
    """

    name: str
    marks: str
    workers: int
    nice: int = 0


LANES = {
    # An Airflow without CPU time considers its tasks lost, so the other lane takes precedence.
    "computes": (Part("computes", "not airflow and not integration", workers=2, nice=5),),
    # As many in parallel as an Airflow on two cores can serve.
    "waits": (
        Part("waits", "(airflow or integration) and not alone", workers=5),
        Part("waits, alone", "alone", workers=0),
    ),
}


def run(part: Part, results: Path, marks: str, options: Sequence[str]) -> int:
    """Run the tests of a part; those that fail run again, one by one. Return the exit code."""
    failed = results / f"{part.name}.failed"
    options = [*options, "-m", f"({marks}) and {part.marks}"]
    side_by_side = [f"--numprocesses={part.workers}", "--dist=loadgroup", f"--junit-xml={results / part.name}.xml"]
    code = run_pytest(part.nice, [*options, *side_by_side], os.environ | {FAILED_VARIABLE: str(failed)})
    if code != TESTS_FAILED or len(failed.read_text().splitlines()) > MOST_AGAIN:
        return code
    print(f"\n{part.name}: running the failed tests again, one by one", flush=True)
    again = [f"--junit-xml={results / part.name}, again.xml", f"@{failed}"]
    # The shared services already have DAG runs and jobs of these tests, with the same ids.
    unshared = {name: value for name, value in os.environ.items() if name != shared.VARIABLE}
    return TESTS_FAILED if run_pytest(0, [*options, *again], unshared) else 0


def run_pytest(nice: int, options: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run pytest once; return its exit code."""
    command = ["nice", "-n", str(nice), sys.executable, "-m", "pytest", *options]
    with subprocess.Popen(command, env=environ) as process:
        try:
            return process.wait()
        except SystemExit:
            process.send_signal(signal.SIGINT)  # like Ctrl-C, so that pytest stops what it has started
            raise


@contextmanager
def shared_services() -> Iterator[None]:
    """Start the shared services. A test that uses one waits until it is ready."""
    with tempfile.TemporaryDirectory(prefix="shared-", dir="/tmp") as folder:
        command = [sys.executable, "-m", "tests.support.shared", folder]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        os.environ[shared.VARIABLE] = folder
        try:
            yield
        finally:
            process.communicate()  # closes its input, so that it stops what it has started


def main(lane: str, results: Path, marks: str, options: Sequence[str]) -> int:
    """
    Run a lane.

    :param lane: a key of :data:`LANES`.
    :param results: the folder for the results.
    :param marks: selects the tests; a value of pytest's option ``-m``.
    :param options: other options of pytest.
    :return: 0 if all tests passed, `NO_TESTS` if none was selected.
    """
    with shared_services() if lane == "waits" else nullcontext():
        codes = {run(part, results, marks, options) for part in LANES[lane]}
    if codes == {NO_TESTS}:
        return NO_TESTS
    return 0 if codes <= {0, NO_TESTS} else 1


def _end(_signal: int, _frame: object) -> None:
    raise SystemExit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
