"""The entrypoint of the suite's jobs: prints everything that a job sees of its submission, as one line of JSON.

It runs in the cluster's Python; its arguments are the names of modules to import.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import stat
import sys
from pathlib import Path

MARK = "PROBE "


def tree(folder: Path) -> list[list[object]]:
    """Return path, kind, mode, size and digest of each file and folder below a folder."""
    rows: list[list[object]] = []
    for path in sorted(folder.rglob("*")):
        # The log can't have names that are not valid text.
        name = str(path.relative_to(folder)).encode("utf-8", "backslashreplace").decode()
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            rows.append([name, "link", str(path.readlink())])
        elif stat.S_ISDIR(found.st_mode):
            rows.append([name, "folder"])
        elif name.endswith((".pyc", ".dist-info/RECORD", ".dist-info/direct_url.json")):
            rows.append([name, "file"])  # pip records when and where it installed a wheel
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            rows.append([name, "file", oct(stat.S_IMODE(found.st_mode)), found.st_size, digest])
    return rows


def value(name: str) -> object:
    """Return the ``VALUE`` of a module, or why it can't be imported."""
    try:
        return importlib.import_module(name).VALUE
    except Exception as e:  # noqa: BLE001  the report has the error
        return repr(e)


def main() -> None:
    added = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if "/runtime_resources/" in part]
    here = Path.cwd()
    modules = [tree(Path(part)) for part in added if Path(part) != here]
    report = {
        # Without a working_dir, a job runs in a folder of Ray.
        "folder": tree(here) if "/runtime_resources/" in str(here) else "none",
        "modules": modules,
        "imported": {name: value(name) for name in sys.argv[1:]},
        "environment": {name: text for name, text in os.environ.items() if name.startswith("PARITY_")},
        # Only the number, because the GPUs are assigned in any order.
        "gpus": len(list(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))),
        "job_config": json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")),
    }
    print(MARK + json.dumps(report, sort_keys=True))


if __name__ == "__main__":
    main()
