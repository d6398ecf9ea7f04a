"""See whether the wheel installs beside the most used providers, on each supported Airflow: `make resolve`.

    python tools/resolve.py                                       every supported Airflow
    python tools/resolve.py --airflow 3.2.2 --python 3.12         one of them
    python tools/resolve.py --constraints FILE                    under constraints; {airflow} and {python} are put in
    python tools/resolve.py --as-of 2026-03-14                    with what there was on that day

It asks uv for one set of versions that fits all, and installs nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import envs
from artefact import build
from console import run_main

AIRFLOWS = ("2.11.2", "3.0.6", "3.1.8", "3.2.2", "3.3.2")
PYTHON = "3.12"  # every one of them runs on it

#: The most used by downloads, those aside that every Airflow brings along.
PROVIDERS = (
    *("amazon", "cncf-kubernetes", "google", "microsoft-azure", "snowflake", "databricks", "dbt-cloud"),
    *("postgres", "mysql", "microsoft-mssql", "redis", "mongo", "common-sql", "apache-spark", "docker"),
    *("http", "slack", "ssh", "sftp", "ftp", "smtp", "imap", "sqlite", "celery", "openlineage", "fab", "standard"),
)

#: What to show of an answer: whose versions the others may push about.
SHOWN = ("apache-airflow-providers-common-compat", "aiohttp", "pathspec", "requests", "tenacity")


def resolve(uv: str, wheel: Path, airflow: str, options: argparse.Namespace) -> tuple[bool, str]:
    """Ask for a set of versions; return whether there is one, and which, or why not."""
    providers = [f"apache-airflow-providers-{name}" for name in PROVIDERS]
    wanted = [f"apache-airflow=={airflow}", f"airflow-provider-rayjobs @ {wheel.as_uri()}", *providers]
    command = [uv, "pip", "compile", "--python-version", options.python, "--no-header", "--no-annotate"]
    if options.constraints:
        place = options.constraints.format(airflow=airflow, python=options.python)
        command += ["--constraints", place]
    if options.as_of:
        command += ["--exclude-newer", options.as_of]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "wanted.in")
        source.write_text("\n".join(wanted) + "\n")
        done = subprocess.run([*command, str(source)], check=False, capture_output=True, text=True)
    if done.returncode:
        return False, done.stderr.strip()
    versions = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    shown = ", ".join(f"{name.removeprefix('apache-airflow-providers-')} {versions[name]}" for name in SHOWN)
    return True, f"{len(versions)} packages; {shown}"


def main(arguments: list[str]) -> int:
    """Do what the module's docstring says."""
    parser = argparse.ArgumentParser(description="See whether the wheel installs beside the most used providers.")
    parser.add_argument("--airflow", action="append", help=f"a version; all by default: {', '.join(AIRFLOWS)}")
    parser.add_argument("--python", default=PYTHON, help="its version (default: %(default)s)")
    parser.add_argument("--constraints", metavar="FILE_OR_URL", help="with {airflow} and {python} for the versions")
    parser.add_argument("--as-of", metavar="DATE", help="without what was released later")
    options = parser.parse_args(arguments)
    uv = envs.needed_uv()
    envs.ensure("dist")
    wheel = build()
    failed = False
    for airflow in options.airflow or AIRFLOWS:
        fits, told = resolve(uv, wheel, airflow, options)
        print(f"Airflow {airflow}, Python {options.python}, {len(PROVIDERS)} providers: {told}", flush=True)
        failed |= not fits
    return int(failed)


if __name__ == "__main__":
    run_main(main)
