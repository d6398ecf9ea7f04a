"""Checks a submission before it is sent."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.ids import check_submission_id
from airflow_provider_rayjobs.client.runtime_env import (
    LARGEST_STRING,
    check_mapping,
    check_runtime_env,
    check_strings,
    is_passable,
)

if TYPE_CHECKING:
    from airflow_provider_rayjobs.client.submission import Submission

#: Bytes that ``runtime_env`` and metadata may have as JSON, so that Ray's additions fit beside them.
LARGEST_ENVIRONMENT = LARGEST_STRING - 1024


def check_submission(submission: Submission) -> None:
    """
    Check all that Ray would refuse only later, or not at all.

    :raises TypeError: a value has a wrong type; the message names it.
    :raises ValueError: a value is wrong; the message names it.
    """
    # The provider adds metadata of its own, which an author may not.
    checks: dict[str, Callable[[Any], object]] = {**CHECKS, "metadata": partial(check_strings, "metadata")}
    for name, check in checks.items():
        value = getattr(submission, name)
        if value is not None:
            check(value)
    check_sizes(submission.runtime_env, submission.metadata)


def check_sizes(runtime_env: Mapping[str, Any] | None, metadata: Mapping[str, str]) -> None:
    """
    Check that Ray can hand a job's environment to its processes.

    Ray writes ``runtime_env`` and metadata as JSON into one environment variable of the driver, and ``env_vars`` into
    one argument of its worker process (``job_supervisor.py``, ``setup_worker.py`` of Ray 2.60). Linux takes neither
    when it has more than 128 KiB. Ray then starts the job again and again: it is PENDING for 15 minutes, can't be
    stopped, and holds up other jobs.

    :raises ValueError: they are too large; the message names the largest part.
    """
    total = len(json.dumps([runtime_env, dict(metadata)], default=str))
    if total <= LARGEST_ENVIRONMENT:
        return
    parts = {f"metadata[{key!r}]": value for key, value in metadata.items()}
    for key, value in (runtime_env or {}).items():
        if key == "env_vars" and isinstance(value, Mapping):
            parts |= {f"runtime_env['env_vars'][{name!r}]": item for name, item in value.items()}
        else:
            parts[f"runtime_env[{key!r}]"] = value
    sizes = {name: len(json.dumps(value, default=str)) for name, value in parts.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    raise ValueError(
        f"runtime_env and metadata have {total:,} bytes as JSON, and Ray can pass at most {LARGEST_ENVIRONMENT:,} to a "
        f"job's processes; the largest part is {largest} with {sizes[largest]:,}. Put large values into a file of the "
        "working_dir, or where the cluster can read them"
    )


def check_entrypoint(entrypoint: Any) -> None:
    """Check that an entrypoint is a text, or a list of texts, with something in it."""
    words = [entrypoint] if isinstance(entrypoint, str) else entrypoint
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"entrypoint must be a text or a list of texts, not {_kind(entrypoint)}")
    if not words or not words[0].strip():
        raise ValueError("entrypoint is empty; it is the command that the cluster runs")
    size = len((entrypoint if isinstance(entrypoint, str) else shlex.join(words)).encode(errors="replace"))
    if size > LARGEST_STRING:
        quoted = "" if isinstance(entrypoint, str) else ", quoted for the shell"
        raise ValueError(
            f"entrypoint has {size:,} bytes{quoted}; Linux gives a process no argument of more than "
            f"{LARGEST_STRING:,}. Put large values into a file of the working_dir, or where the cluster can read them"
        )
    if not all(map(is_passable, words)):
        raise ValueError("entrypoint holds a NUL character, or half of a surrogate pair, which no command line can")


def check_metadata(metadata: Any) -> None:
    """Check that metadata is texts, under keys that are not the provider's own."""
    check_strings("metadata", metadata)
    for key in metadata:
        if key.startswith(keys.PREFIX):
            raise ValueError(f"metadata[{key!r}]: keys that begin with {keys.PREFIX!r} are the provider's own")


def check_resources(resources: Any) -> None:
    """Check that custom resources are named amounts."""
    check_mapping("entrypoint_resources", resources)
    for name, amount in resources.items():
        if not isinstance(name, str):
            raise TypeError(f"entrypoint_resources has the key {name!r}, which is no text")
        check_amount(f"entrypoint_resources[{name!r}]", amount)
        if name in _OWN_ARGUMENTS:
            raise ValueError(f"entrypoint_resources holds {name!r}; {_OWN_ARGUMENTS[name]}")


def check_gpus(amount: Any) -> None:
    """Check a number of GPUs: a part of one, or whole ones."""
    check_amount("entrypoint_num_gpus", amount)
    if amount is not None and amount > 1 and amount != int(amount):
        raise ValueError(f"entrypoint_num_gpus is {amount}; above 1 it must be a whole number")


def check_amount(name: str, value: Any, *, whole: bool = False) -> None:
    """Check that a value is None or a number that is neither negative nor infinite."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else Real):
        raise TypeError(f"{name} must be {'a whole' if whole else 'a'} number, not {_kind(value)}")
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} is {value}; it can't be negative or infinite")


def check_duration(name: str, value: Any) -> None:
    """Check that a value is None or a positive number of seconds."""
    check_amount(name, value)
    if value is not None and value <= 0:
        raise ValueError(f"{name} is {value}; it must be a positive number of seconds")


def _kind(value: Any) -> str:
    # Only for what can't hold a secret; of runtime_env and metadata the type alone is told.
    return f"{value!r} ({type(value).__name__})"


#: Resources that Ray takes by arguments of their own only.
_OWN_ARGUMENTS = {
    "CPU": "use entrypoint_num_cpus",
    "GPU": "use entrypoint_num_gpus",
    "memory": "use entrypoint_memory",
    "object_store_memory": "a job can't reserve it",
}

#: What makes the job, and how each is checked.
CHECKS: Mapping[str, Callable[[Any], object]] = {
    "entrypoint": check_entrypoint,
    "runtime_env": check_runtime_env,
    "submission_id": check_submission_id,
    "metadata": check_metadata,
    "entrypoint_num_cpus": partial(check_amount, "entrypoint_num_cpus"),
    "entrypoint_num_gpus": check_gpus,
    "entrypoint_memory": partial(check_amount, "entrypoint_memory", whole=True),
    "entrypoint_resources": check_resources,
    "entrypoint_label_selector": partial(check_strings, "entrypoint_label_selector"),
}
