"""Checks an operator's arguments: when the DAG is parsed as far as they are known, and before the submission."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.checks import CHECKS, check_duration
from airflow_provider_rayjobs.client.ids import check_submission_id, names_no_job
from airflow_provider_rayjobs.client.runtime_env import (
    check_env_vars,
)


def as_number(value: Any) -> Any:
    """Return the number that a rendered template says, else the value as it is; an empty text is None."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text in ("", "None"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return value


def _as_rendered(name: str, value: Any) -> Any:
    """Return a field's value with the numbers that templates render to texts."""
    if name in _AMOUNTS:
        value = as_number(value)
        whole = name == "entrypoint_memory" and isinstance(value, float) and value.is_integer()
        return int(value) if whole else value
    if name == "entrypoint_resources" and isinstance(value, Mapping):
        return {key: as_number(amount) for key, amount in value.items()}
    return value


def _is_literal(value: Any) -> bool:
    """Whether a value is known when the DAG is parsed: plain data without templates and without XComs."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, Mapping):
        return all(_is_literal(item) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple):
        return all(map(_is_literal, value))
    # What Airflow resolves later (XComs, mapped arguments) are objects of its own.
    return not type(value).__module__.startswith("airflow")


_AMOUNTS = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory")


def check_operator(operator: Any) -> None:
    """
    Check an operator's arguments as far as they are known when the DAG is parsed: no templates, no XComs.

    :raises TypeError: a value has a wrong type; the message names it.
    :raises ValueError: a value is wrong; the message names it.
    """
    if operator.poll_interval is None:
        raise TypeError("poll_interval must be a number of seconds, not None")
    check_duration("poll_interval", operator.poll_interval)
    for name in ("job_timeout", "pending_timeout"):
        if _is_literal(value := getattr(operator, name)):
            check_duration(name, as_number(value))
    check_fields(operator, CHECKS)
    secret = operator.secret_env_vars
    if secret and _is_literal(secret):
        check_env_vars("secret_env_vars", secret)


def check_literal_id(submission_id: Any) -> None:
    """Check the id of a job that must have one, as far as it is known when the DAG is parsed."""
    if _is_literal(submission_id):
        if names_no_job(submission_id):
            raise ValueError(f"submission_id is {submission_id!r}; name the job")
        check_submission_id(submission_id)


def check_fields(operator: Any, names: Iterable[str]) -> None:
    """Check the named fields of an operator, as far as their values are known."""
    for name in names:
        value, check = _as_rendered(name, getattr(operator, name)), CHECKS[name]
        if (name == "entrypoint" or value not in (None, "")) and _is_literal(value):
            check(value)


def checked_fields(operator: Any, names: Iterable[str]) -> dict[str, Any]:
    """
    Return the rendered fields of an operator that have a value.

    :raises TypeError: a value has a wrong type; the message names it.
    :raises ValueError: a value is wrong; the message names it.
    """
    check_fields(operator, names)
    values = {name: _as_rendered(name, getattr(operator, name)) for name in names}
    return {name: value for name, value in values.items() if value not in (None, "")}


def job_arguments(operator: Any) -> dict[str, Any]:
    """
    Return the rendered arguments of an operator as the hook's ``submit_job`` takes them, all of them checked.

    :raises TypeError: a value has a wrong type; the message names it.
    :raises ValueError: a value is wrong; the message names it.
    """
    check_operator(operator)
    values = {name: getattr(operator, name) for name in CHECKS}
    values = {name: _as_rendered(name, value) for name, value in values.items()}
    values["metadata"] = values["metadata"] or {}
    if names_no_job(values["submission_id"]):
        values["submission_id"] = None
    if operator.secret_env_vars:
        values["runtime_env"] = _with_secrets(values["runtime_env"] or {}, operator.secret_env_vars)
        values["metadata"] = {**values["metadata"], keys.SECRET_ENV_VARS: ",".join(operator.secret_env_vars)}
    return values


def _with_secrets(runtime_env: Mapping[str, Any], secret: Mapping[str, str]) -> dict[str, Any]:
    env_vars = runtime_env.get("env_vars") or {}
    if twice := sorted(env_vars.keys() & secret.keys()):
        raise ValueError(f"runtime_env['env_vars'] and secret_env_vars both hold {twice[0]!r}; keep one of the two")
    return {**runtime_env, "env_vars": {**env_vars, **secret}}
