"""Tests the wheel on the newest and the oldest Airflow: `make test`.

    python tools/wheel_tests.py                                on both, if this Python supports both
    python tools/wheel_tests.py --on airflow-2.11 -- -k hook   on one; the arguments after -- are passed to pytest

The wheel is built once. The tests are those of the sdist; they run in a folder without the package's source.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from xml.etree import ElementTree

import artefact
import environment
import envs
from console import ToolError, run_main

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: The tests that run on each Airflow. On the oldest one, only those whose result can differ.
MARKS = {
    "airflow-3.3": f"{artefact.NOT_ELSEWHERE} and not harness",
    "airflow-2.11": f"(airflow or not integration) and not any_airflow and {artefact.NOT_ELSEWHERE} and not harness",
}

RAY = "ray-2.60"

#: The lane that tests the installed files, and those of `tests/lanes.py`.
INSTALLED = "installed"
LANES = (INSTALLED, "computes", "waits")
NO_TESTS = 5  # exit code of pytest if no test was selected

RESULTS = envs.ROOT / "build" / "tests"
SLOWEST = 25


class Timed(NamedTuple):
    """The duration of one test."""

    seconds: float
    run: str
    name: str


class Lanes:
    """
    The lanes of the tests. They run at the same time, each on one Airflow after the other.

    :param installed: the environment for each name in `MARKS`.
    :param source: the folder of the tests.
    :param options: options of pytest.
    """

    def __init__(self, installed: Mapping[str, str], source: Path, options: Sequence[str]) -> None:
        self._installed, self._source, self._options = installed, source, options
        self._running: list[subprocess.Popen[bytes]] = []
        self._stopped = threading.Event()
        self.codes: dict[Path, int] = {}  # by the file with the output

    def run(self) -> None:
        """Run all tests."""
        with ThreadPoolExecutor() as lanes:
            try:
                for followed in [lanes.submit(self._follow, lane) for lane in LANES]:
                    followed.result()
            except BaseException:  # such as Ctrl-C
                self._stopped.set()
                for process in self._running:
                    process.terminate()
                raise

    def _follow(self, lane: str) -> None:
        for name in self._installed:
            if self._stopped.is_set():
                return
            log = RESULTS / name / f"{lane}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as out:
                process = self._start(lane, name, out)
            self._running.append(process)
            self.codes[log] = process.wait()
            print(f"{name}, {lane}: {log.read_text(errors='replace').rstrip().rpartition(chr(10))[2]}", flush=True)

    def _start(self, lane: str, name: str, out: BinaryIO) -> subprocess.Popen[bytes]:
        env, environ = self._installed[name], environment.for_installers()
        if lane == INSTALLED:
            command, folder = artefact.test_command(env, artefact.INSTALLED), envs.ROOT
        else:
            command, folder = [envs.program(env, "python"), "-m", "tests.lanes", lane], self._source
            command += [str(RESULTS / name), MARKS[name], *self._options]
            environ |= {"PYTHONPATH": str(self._source), "RAYJOBS_RAY_BIN": envs.program(RAY, "ray")}
        return subprocess.Popen(command, cwd=folder, env=environ, stdout=out, stderr=subprocess.STDOUT)


def report() -> str:
    """Return how many tests ran in each lane, and the slowest of them."""
    lines, tests = ["tests  minutes  run"], []
    for file in sorted(RESULTS.glob("*/*.xml")):
        run = f"{file.parent.name}, {file.stem}"
        cases = list(ElementTree.parse(file).getroot().iter("testcase"))  # noqa: S314 - our own file
        times = [float(case.get("time", "0")) for case in cases]
        names = [f"{case.get('classname')}::{case.get('name')}" for case in cases]
        tests += [Timed(seconds, run, name) for seconds, name in zip(times, names, strict=True)]
        lines.append(f"{len(cases):5}  {sum(times) / 60:7.1f}  {run}")
    lines += [f"{len(tests):5}  {sum(test.seconds for test in tests) / 60:7.1f}  in total", ""]
    lines += [f"failed at first: {file.read_text().rstrip()}" for file in sorted(RESULTS.glob("*/*.failed"))]
    lines += [f"{test.seconds:5.0f} s  {test.run}: {test.name}" for test in sorted(tests, reverse=True)[:SLOWEST]]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the tests, and print a summary."""
    parser = argparse.ArgumentParser(description="Test the wheel.")
    parser.add_argument("--on", choices=MARKS, help="default: each that this Python supports")
    parser.add_argument("options", nargs="*", help="options of pytest, after --")
    options = parser.parse_args(arguments)
    names = [options.on] if options.on else [name for name in MARKS if envs.can_be_made(name)]
    for name in names:
        envs.check_name(name)

    shutil.rmtree(RESULTS, ignore_errors=True)
    envs.ensure(RAY)
    lanes = Lanes(
        artefact.build_and_install(names), artefact.unpacked(artefact.DIST, RESULTS / "source"), options.options
    )
    print(f"\nRunning all tests, which takes minutes without output; their logs are {RESULTS}/*/*.log", flush=True)
    lanes.run()
    print(f"\n{report()}")
    failed = [log for log, code in lanes.codes.items() if code not in (0, NO_TESTS)]
    for log in failed:
        print(f"\n{log.parent.name}, {log.stem}:\n{log.read_text(errors='replace')}")
    if left_out := [name for name in MARKS if name not in names and not options.on]:
        print(f"\nSkipped: {', '.join(left_out)}, which needs an older Python: make PYTHON=python3.12 test")
    if failed:
        raise ToolError(f"Tests failed: {', '.join(str(log) for log in failed)}")
    if {code for log, code in lanes.codes.items() if log.stem != INSTALLED} == {NO_TESTS}:
        raise ToolError("No test was selected.")
    return 0


if __name__ == "__main__":
    run_main(main)
