"""
Run the tests of one lane: those that compute, or those that wait for Airflow's and Ray's processes.

    python -m tests.lanes LANE RESULTS MARKS [OPTIONS of pytest]

The lanes, `computes` and `waits`, can run at once. Those that wait share an Airflow, a Ray head and a PostgreSQL,
several tests at a time; those that kill what they share come last, alone. The results are left in the folder RESULTS,
as JUnit's XML.
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

# Exit codes of pytest: a test failed, none was selected.
TESTS_FAILED = 1
NO_TESTS = 5

#: A machine that others use, too, makes a test or two too slow. More failures than this are none of that kind.
MOST_AGAIN = 5

#: Names the file for the names of the tests that fail.
FAILED_VARIABLE = "RAYJOBS_TEST_FAILED"


class Part(NamedTuple):
    """
    One run of pytest.

    :param name: in the results.
    :param marks: which tests.
    :param workers: how many run at once; 0: no workers.
    :param nice: how much it leaves to others.
    """

    name: str
    marks: str
    workers: int
    nice: int = 0


LANES = {
    # An Airflow that gets no CPU takes its own tasks for lost, so those that wait for one come first.
    "computes": (Part("computes", "not airflow and not integration", workers=2, nice=5),),
    # As many at once as an Airflow on two cores can serve.
    "waits": (
        Part("waits", "(airflow or integration) and not alone", workers=5),
        Part("waits, alone", "alone", workers=0),
    ),
}


def run(part: Part, results: Path, marks: str, options: Sequence[str]) -> int:
    """Run the tests of a part; those that fail beside others are tried once more, alone. Return the exit code."""
    failed = results / f"{part.name}.failed"
    options = [*options, "-m", f"({marks}) and {part.marks}"]
    side_by_side = [f"--numprocesses={part.workers}", "--dist=loadgroup", f"--junit-xml={results / part.name}.xml"]
    code = run_pytest(part.nice, [*options, *side_by_side], os.environ | {FAILED_VARIABLE: str(failed)})
    if code != TESTS_FAILED or len(failed.read_text().splitlines()) > MOST_AGAIN:
        return code
    print(f"\n{part.name}: what failed, once more, alone", flush=True)
    again = [f"--junit-xml={results / part.name}, again.xml", f"@{failed}"]
    # What is shared has their runs already, under the same ids.
    unshared = {name: value for name, value in os.environ.items() if name != shared.VARIABLE}
    return TESTS_FAILED if run_pytest(0, [*options, *again], unshared) else 0


def run_pytest(nice: int, options: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run pytest once; return its exit code."""
    command = ["nice", "-n", str(nice), sys.executable, "-m", "pytest", *options]
    with subprocess.Popen(command, env=environ) as process:
        try:
            return process.wait()
        except SystemExit:
            process.send_signal(signal.SIGINT)  # as Ctrl-C, which pytest itself gets: it ends what it has started
            raise


@contextmanager
def shared_services() -> Iterator[None]:
    """Start what is shared; the pytest that wants it waits for it."""
    with tempfile.TemporaryDirectory(prefix="shared-", dir="/tmp") as folder:
        command = [sys.executable, "-m", "tests.support.shared", folder]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        os.environ[shared.VARIABLE] = folder
        try:
            yield
        finally:
            process.communicate()  # closes its input, at which it ends what it has started


def main(lane: str, results: Path, marks: str, options: Sequence[str]) -> int:
    """
    Run a lane.

    :param lane: a key of :data:`LANES`.
    :param results: the folder for the results.
    :param marks: which tests, as pytest's option ``-m`` takes it.
    :param options: more options of pytest.
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
