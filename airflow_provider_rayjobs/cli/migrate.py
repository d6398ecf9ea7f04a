"""The command ``migrate``, which rewrites DAG files of astro-provider-ray."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.cli.output import ERROR, log, offline_command
from airflow_provider_rayjobs.migration.astro_ray import Migration

if TYPE_CHECKING:
    from argparse import Namespace
    from typing import TextIO


@offline_command
def migrate_files(args: Namespace, out: TextIO) -> int:
    """Print the changes of each file, or write them, and say what is left to do."""
    left = [_migrate(name, out, write=args.write) for name in args.files]
    return ERROR if any(left) else 0


def _migrate(name: str, out: TextIO, *, write: bool) -> bool:
    """
    Rewrite one file.

    :return: whether something is left to do.
    """
    path = Path(name)
    try:
        content = path.read_bytes()
        migration = Migration(content)
        changed = migration.source.encoded(migration.text)
        if write and changed != content:
            path.write_bytes(changed)
    except OSError as e:
        log.error("%s: can't be read or written: %s", name, e.strerror or e)
        return True
    except SyntaxError as e:
        log.error("%s:%s: is not valid Python: %s", name, e.lineno or 1, e.msg)
        return True
    if write and changed != content:
        out.write(f"Rewrote {name}\n")
    elif not write:
        out.writelines(_diff(name, migration.source.text, migration.text))
    for remark in migration.remarks:
        line = migration.source.line_after(remark.line) if write else remark.line
        log.warning("%s:%d: %s: %s", name, line, "to do" if remark.is_left else "check", remark.text)
    return migration.left


def _diff(name: str, before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, lineterm="")
    return [f"{line}\n" for line in lines]
