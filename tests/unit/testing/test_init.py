"""The plugin in a pytest of its own: the example of the documentation runs as it stands, on a fresh Airflow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "testing.md"


#: Creates Airflow's database as `airflow db migrate` does, and runs pytest; one process for both loads Airflow once.
MIGRATE_AND_TEST = """
import sys
from airflow.utils.db import initdb
initdb()
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:anyio"]))
"""


def run(folder: Path) -> str:
    """Run the tests in a folder as the page says; return their output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST", "RAYJOBS"))}
    env = {
        **kept,
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        # The package itself is installed, or found where this process found it.
        "PYTHONPATH": os.pathsep.join([str(folder / "dags"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    done = subprocess.run(
        [sys.executable, "-c", MIGRATE_AND_TEST],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def examples() -> dict[str, str]:
    """Return the blocks of the page that begin with the name of a file."""
    return dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.mark.timeout(600)
def test_the_example_of_the_documentation_passes(tmp_path: Path) -> None:
    files = examples()
    assert sorted(files) == ["conftest.py", "dags/nightly.py", "test_nightly.py"]
    for name, code in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code)
    output = run(tmp_path)
    assert "2 passed" in output, output[-8000:]


def test_nothing_else_of_the_package_imports_pytest() -> None:
    import airflow_provider_rayjobs

    package = Path(airflow_provider_rayjobs.__file__).parent
    importing = [
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if re.search(r"^\s*(import|from) pytest\b", file.read_text(), re.MULTILINE)
    ]
    assert importing == ["testing/__init__.py"]
