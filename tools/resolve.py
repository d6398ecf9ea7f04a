"""Checks that the wheel can be installed together with the most used providers, on each supported Airflow.

    python tools/resolve.py                                    every supported Airflow
    python tools/resolve.py --airflow 3.2.2 --python 3.12      one of them
    python tools/resolve.py --constraints FILE_OR_URL          under constraints; {airflow} and {python} are replaced
    python tools/resolve.py --as-released                      with the packages that existed at that Airflow's release

This is `make resolve`. It asks uv for one set of compatible versions, and installs nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import environment
import envs
from artefact import build
from console import run_main

#: Each supported Airflow, and a day soon after its release, from which its constraints have the newest packages.
AIRFLOWS = {
    "2.11.2": "2026-03-15",
    "3.0.6": "2025-09-01",
    "3.1.8": "2026-03-15",
    "3.2.2": "2026-06-01",
    "3.3.2": "2026-10-01",
}
PYTHON = "3.12"  # supported by all of them

#: The most downloaded providers, except those that every Airflow installs.
PROVIDERS = (
    *("amazon", "cncf-kubernetes", "google", "microsoft-azure", "snowflake", "databricks", "dbt-cloud"),
    *("postgres", "mysql", "microsoft-mssql", "redis", "mongo", "common-sql", "apache-spark", "docker"),
    *("http", "slack", "ssh", "sftp", "ftp", "smtp", "imap", "sqlite", "celery", "openlineage", "fab", "standard"),
)

#: Packages that may be newer than an Airflow's constraints allow. Those of 3.0 pin a version without
#: `common.compat.sdk`, which all of Apache's newer providers need.
FREED = {"3.0.6": "apache-airflow-providers-common-compat"}

#: The packages to show of a result, because others may restrict their versions.
SHOWN = ("apache-airflow-providers-common-compat", "aiohttp", "pathspec", "requests", "tenacity")


def constraints(place: str, airflow: str) -> str:
    """Read the constraints of an Airflow, except of packages that may be newer."""
    if "://" in place:
        with urllib.request.urlopen(place, timeout=30) as answer:
            text = answer.read().decode()
    else:
        text = Path(place).read_text()
    freed = f"{FREED.get(airflow, ' ')}=="
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(freed))


def resolve(uv: str, wheel: Path, airflow: str, options: argparse.Namespace) -> tuple[bool, str]:
    """Ask uv for a set of versions; return whether there is one, and either its versions or the reason."""
    providers = [f"apache-airflow-providers-{name}" for name in PROVIDERS]
    wanted = [f"apache-airflow=={airflow}", f"airflow-provider-rayjobs @ {wheel.as_uri()}", *providers]
    command = [uv, "pip", "compile", "--python-version", options.python, "--no-header", "--no-annotate"]
    if options.as_released:
        command += ["--exclude-newer", AIRFLOWS[airflow]]
        if airflow in FREED:
            command += ["--exclude-newer-package", f"{FREED[airflow]}=2100-01-01"]
    with tempfile.TemporaryDirectory() as folder:
        source, limits = Path(folder, "wanted.in"), Path(folder, "constraints.txt")
        source.write_text("\n".join(wanted) + "\n")
        if options.constraints:
            place = options.constraints.format(airflow=airflow, python=options.python)
            limits.write_text(constraints(place, airflow))
            command += ["--constraints", str(limits)]
        env = environment.for_installers()
        done = subprocess.run([*command, str(source)], check=False, env=env, capture_output=True, text=True)
    if done.returncode:
        return False, done.stderr.strip()
    versions = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    shown = ", ".join(f"{name.removeprefix('apache-airflow-providers-')} {versions[name]}" for name in SHOWN)
    return True, f"{len(versions)} packages; {shown}"


def main(arguments: list[str]) -> int:
    """Check each Airflow; return 1 if one has no set of versions."""
    parser = argparse.ArgumentParser(description="Check that the wheel can be installed with the most used providers.")
    parser.add_argument("--airflow", action="append", choices=AIRFLOWS, help="a version (default: all)")
    parser.add_argument("--python", default=PYTHON, help="the version of Python (default: %(default)s)")
    parser.add_argument("--constraints", metavar="FILE_OR_URL", help="{airflow} and {python} stand for the versions")
    parser.add_argument("--as-released", action="store_true", help="exclude packages that are newer than that Airflow")
    options = parser.parse_args(arguments)
    uv = envs.needed_uv()
    envs.ensure("dist")
    wheel = build()
    failed = False
    for airflow in options.airflow or AIRFLOWS:
        fits, result = resolve(uv, wheel, airflow, options)
        print(f"Airflow {airflow}, Python {options.python}, {len(PROVIDERS)} providers: {result}", flush=True)
        failed |= not fits
    return int(failed)


if __name__ == "__main__":
    run_main(main)
