"""What decides which tests run, and whether they passed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import lanes
from tests.support.reach import knows_airflow, reached

ROOT = Path(__file__).parents[3]
UNIT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("codes", "wanted"),
    [((0, 0), 0), ((5, 0), 0), ((5, 5), 5), ((1, 0), 1), ((0, 2), 1), ((-9, 0), 1), ((0, -11), 1), ((5, 1), 1)],
)
def test_a_lane_passes_if_each_run_of_pytest_does(
    codes: tuple[int, int], wanted: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ends = iter(codes)
    monkeypatch.setattr(lanes, "run", lambda *_: next(ends))
    monkeypatch.setitem(lanes.LANES, "two", lanes.LANES["waits"])
    assert lanes.main("two", tmp_path, "any", []) == wanted


@pytest.mark.parametrize(("again", "wanted"), [("assert True", 0), ("assert False", 1)])
def test_what_fails_beside_others_is_tried_once_more(again: str, wanted: int, tmp_path: Path) -> None:
    name = "a@b[c@d"  # as groups and parameters may look
    (tmp_path / "test_it.py").write_text(
        "import os, pathlib, pytest\n"
        f"@pytest.mark.xdist_group('g')\n@pytest.mark.parametrize('p', [{name!r}])\n"
        "def test_twice(p):\n"
        "    been = pathlib.Path(__file__).with_name('been')\n"
        f"    if been.exists():\n        {again}\n    else:\n        been.touch()\n        assert False\n"
        "def test_once(): pass\n"
    )
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_logreport\n")
    options = [f"--rootdir={tmp_path}", "-c", os.devnull, "-p", "no:cacheprovider", str(tmp_path)]
    code = (
        "import sys; from pathlib import Path; from tests import lanes\n"
        "sys.exit(lanes.run(lanes.Part('p', 'not airflow', 2), Path(sys.argv[1]), 'not x', sys.argv[2:]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), *options]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == wanted, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "running the failed tests again, one by one" in done.stdout


@pytest.mark.parametrize(
    ("name", "knows"),
    [
        ("text/test_safe_text", False),
        ("following/test_poller", False),
        ("test_hooks", True),
        ("cli/test_commands", True),
    ],
)
def test_what_reaches_airflow_is_told_by_the_imports(name: str, knows: bool) -> None:
    file = UNIT / f"{name}.py"
    assert knows_airflow(file) is knows


def test_imports_are_followed_through_modules_and_functions() -> None:
    names = {file.name for file in reached(UNIT / "following" / "test_poller.py")}
    assert {"test_poller.py", "poller.py", "verbs.py", "aiohttp_transport.py"} <= names
    assert "submit.py" not in names


@pytest.mark.parametrize(("most", "code", "wanted"), [("1", 0, 0), ("1", 3, 3), ("0", 0, 1), ("0", 3, 3)])
def test_too_much_cpu_is_a_failure(most: str, code: int, wanted: int) -> None:
    work = f"import sys\nfor _ in range(200_000): pass\nsys.exit({code})"
    command = [sys.executable, str(ROOT / "tools" / "cpu_limit.py"), most, sys.executable, "-c", work]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == wanted
    assert f"minutes of CPU; the limit is {most}." in done.stdout
    assert ("The command used too much CPU" in done.stderr) is (wanted == 1)
