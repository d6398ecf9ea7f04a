"""Checks submissions before they are sent."""

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
from airflow_provider_rayjobs.client.plain_values import LARGEST_STRING, check_mapping, check_strings, is_passable

if TYPE_CHECKING:
    from airflow_provider_rayjobs.client.submission import Submission

#: Maximum size of ``runtime_env`` and metadata as JSON, in bytes; leaves room for what Ray adds.
LARGEST_ENVIRONMENT = LARGEST_STRING - 1024


def check_submission(submission: Submission) -> None:
    """
    Check everything that Ray would reject too late, or never.

    :raises TypeError: a value has the wrong type; the message names it.
    :raises ValueError: a value is invalid; the message names it.
    """
    # Unlike an author's metadata, that of a submission contains the provider's own keys.
    checks: dict[str, Callable[[Any], object]] = {**CHECKS, "metadata": partial(check_strings, "metadata")}
    for name, check in checks.items():
        value = getattr(submission, name)
        if value is not None:
            check(value)
    check_sizes(submission.runtime_env, submission.metadata)


def check_sizes(runtime_env: Mapping[str, Any] | None, metadata: Mapping[str, str]) -> None:
    """
    Check that Ray can pass a job's environment to its processes.

    Ray writes ``runtime_env`` and metadata as JSON into one environment variable of the driver, and ``env_vars`` into
    one argument of its worker process (``job_supervisor.py``, ``setup_worker.py`` of Ray 2.60). Linux accepts at most
    128 KiB for each. Beyond that, Ray starts the job again and again: it stays PENDING for 15 minutes, can't be
    stopped, and delays other jobs.

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
        f"runtime_env and metadata have {total:,} bytes as JSON, but Ray can pass at most {LARGEST_ENVIRONMENT:,} to a "
        f"job's processes; the largest part is {largest} with {sizes[largest]:,}. Put large values into a file of the "
        "working_dir, or where the cluster can read them"
    )


def check_entrypoint(entrypoint: Any) -> None:
    """Check that an entrypoint is a non-empty string or list of strings."""
    words = [entrypoint] if isinstance(entrypoint, str) else entrypoint
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"entrypoint must be a string or a list of strings, not {_kind(entrypoint)}")
    if not words or not words[0].strip():
        raise ValueError("entrypoint is empty; it is the command that the cluster runs")
    size = len((entrypoint if isinstance(entrypoint, str) else shlex.join(words)).encode(errors="replace"))
    if size > LARGEST_STRING:
        quoted = "" if isinstance(entrypoint, str) else ", quoted for the shell"
        raise ValueError(
            f"entrypoint has {size:,} bytes{quoted}; on Linux, an argument of a process has at most "
            f"{LARGEST_STRING:,}. Put large values into a file of the working_dir, or where the cluster can read them"
        )
    if not all(map(is_passable, words)):
        raise ValueError("entrypoint must not contain NUL or lone surrogates: command lines can't hold them")


def check_environment(runtime_env: Any) -> None:
    """Check a ``runtime_env``. Many jobs have none, so the checks are loaded only here."""
    from airflow_provider_rayjobs.client.runtime_env import check_runtime_env

    check_runtime_env(runtime_env)


def check_metadata(metadata: Any) -> None:
    """Check that metadata maps strings to strings, and has no key with the provider's prefix."""
    check_strings("metadata", metadata)
    for key in metadata:
        if key.startswith(keys.PREFIX):
            raise ValueError(f"metadata[{key!r}]: keys that begin with {keys.PREFIX!r} are reserved for the provider")


def check_resources(resources: Any) -> None:
    """Check that custom resources map names to amounts."""
    check_mapping("entrypoint_resources", resources)
    for name, amount in resources.items():
        if not isinstance(name, str):
            raise TypeError(f"entrypoint_resources has the key {name!r}; keys must be strings")
        check_amount(f"entrypoint_resources[{name!r}]", amount)
        if name in _OWN_ARGUMENTS:
            raise ValueError(f"entrypoint_resources must not contain {name!r}; {_OWN_ARGUMENTS[name]}")


def check_gpus(amount: Any) -> None:
    """Check a number of GPUs: a fraction of one, or whole GPUs."""
    check_amount("entrypoint_num_gpus", amount)
    if amount is not None and amount > 1 and amount != int(amount):
        raise ValueError(f"entrypoint_num_gpus is {amount}; above 1 it must be a whole number")


def check_amount(name: str, value: Any, *, whole: bool = False) -> None:
    """Check that a value is None or a finite number of at least 0."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else Real):
        raise TypeError(f"{name} must be {'a whole' if whole else 'a'} number, not {_kind(value)}")
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} is {value}; it must be finite and not negative")


def check_duration(name: str, value: Any) -> None:
    """Check that a value is None or a positive number of seconds."""
    check_amount(name, value)
    if value is not None and value <= 0:
        raise ValueError(f"{name} is {value}; it must be a positive number of seconds")


def _kind(value: Any) -> str:
    # Shows the value, so it is not for runtime_env and metadata, which may hold secrets.
    return f"{value!r} ({type(value).__name__})"


#: Resources that Ray doesn't accept among the custom ones, and what to do instead.
_OWN_ARGUMENTS = {
    "CPU": "use entrypoint_num_cpus",
    "GPU": "use entrypoint_num_gpus",
    "memory": "use entrypoint_memory",
    "object_store_memory": "a job can't reserve it",
}

#: The check of each field of a submission.
CHECKS: Mapping[str, Callable[[Any], object]] = {
    "entrypoint": check_entrypoint,
    "runtime_env": check_environment,
    "submission_id": check_submission_id,
    "metadata": check_metadata,
    "entrypoint_num_cpus": partial(check_amount, "entrypoint_num_cpus"),
    "entrypoint_num_gpus": check_gpus,
    "entrypoint_memory": partial(check_amount, "entrypoint_memory", whole=True),
    "entrypoint_resources": check_resources,
    "entrypoint_label_selector": partial(check_strings, "entrypoint_label_selector"),
}
