"""Lines about a submission for the task log, without secrets."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.runtime_env import public_runtime_env

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


#: Maximum number of characters of an argument in the task log.
LONGEST_LINE = 2000


def submission_lines(job: Mapping[str, Any], public: Callable[[str], str]) -> list[str]:
    """
    Return one line per argument of a submission, without secrets; ``env_vars`` are listed by name only.

    :param job: the arguments of the hook's ``submit_job``.
    :param public: masks the secrets in a text.
    """
    return [
        _shortened(public(f"{name}: {_readable(name, value)}"))
        for name, value in job.items()
        if value not in (None, "", {}) and name not in ("submission_id", "metadata")
    ]


def log_group(log: Any, title: str, lines: Iterable[str]) -> None:
    """Log lines as a group, which Airflow's UI collapses."""
    log.info("::group::%s", title)
    for line in lines:
        log.info("%s", line)
    log.info("::endgroup::")


def _readable(name: str, value: Any) -> str:
    if name == "entrypoint":
        return value if isinstance(value, str) else shlex.join(value)
    return json.dumps(public_runtime_env(value) if name == "runtime_env" else value, default=str)


def _shortened(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}… ({len(line):,} characters)"
