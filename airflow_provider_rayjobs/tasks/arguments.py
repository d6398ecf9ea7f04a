"""Checks the arguments of tasks: what is known when the DAG is parsed, and everything before a submission."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.checks import CHECKS, check_duration
from airflow_provider_rayjobs.client.ids import check_submission_id, is_not_given
from airflow_provider_rayjobs.client.plain_values import check_env_vars

#: The fields that are single numbers.
_AMOUNTS = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory")


def as_number(value: Any) -> Any:
    """Return the number that a rendered template holds, None for an empty string, else the value as it is."""
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
    """Return a field's value; templates render numbers to strings, which become numbers again."""
    if name in _AMOUNTS:
        value = as_number(value)
        whole = name == "entrypoint_memory" and isinstance(value, float) and value.is_integer()
        return int(value) if whole else value
    if name == "entrypoint_resources" and isinstance(value, Mapping):
        return {key: as_number(amount) for key, amount in value.items()}
    return value


def _is_known(value: Any) -> bool:
    """Whether a value is known when the DAG is parsed: plain data without templates and without XComs."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, Mapping):
        return all(_is_known(item) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple):
        return all(map(_is_known, value))
    # What Airflow resolves later (XComs, mapped arguments) are objects of its own.
    return not type(value).__module__.startswith("airflow")


@dataclass(frozen=True)
class JobArguments:
    """
    The arguments of a task that submits a job: with templates when the DAG is parsed, rendered when the task runs.

    The names are those of :class:`~airflow_provider_rayjobs.operators.RaySubmitJobOperator`.
    """

    entrypoint: str | list[str]
    runtime_env: Any = None
    secret_env_vars: Any = None
    submission_id: str | None = None
    metadata: Any = None
    entrypoint_num_cpus: float | str | None = None
    entrypoint_num_gpus: float | str | None = None
    entrypoint_memory: int | str | None = None
    entrypoint_resources: Any = None
    entrypoint_label_selector: Any = None
    result_path: str | None = None
    poll_interval: float = 30.0
    job_timeout: float | str | None = None
    pending_timeout: float | str | None = None

    def _of_the_job(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in CHECKS}

    def check(self) -> None:
        """
        Check the values that are known: those without templates and XComs.

        :raises TypeError: a value has a wrong type; the message names it.
        :raises ValueError: a value is wrong; the message names it.
        """
        limits = {"job_timeout": self.job_timeout, "pending_timeout": self.pending_timeout}
        if self.poll_interval is None:
            raise TypeError("poll_interval must be a number of seconds, not None")
        check_duration("poll_interval", self.poll_interval)
        for name, limit in limits.items():
            if _is_known(limit):
                check_duration(name, as_number(limit))
        check_known(self._of_the_job())
        if self.secret_env_vars and _is_known(self.secret_env_vars):
            check_env_vars("secret_env_vars", self.secret_env_vars)
        if _is_known(self.result_path):
            _check_result_path(self.result_path)

    def for_hook(self) -> dict[str, Any]:
        """
        Return the rendered arguments, all checked, as :meth:`RayJobHook.submit_job` takes them.

        :raises TypeError: a value has a wrong type; the message names it.
        :raises ValueError: a value is wrong; the message names it.
        """
        self.check()
        _check_result_path(self.result_path)
        values = {name: _as_rendered(name, value) for name, value in self._of_the_job().items()}
        values["metadata"] = values["metadata"] or {}
        if is_not_given(values["submission_id"]):
            values["submission_id"] = None
        if self.secret_env_vars:
            values["runtime_env"] = _with_secrets(values["runtime_env"] or {}, self.secret_env_vars)
            values["metadata"] = {**values["metadata"], keys.SECRET_ENV_VARS: ",".join(self.secret_env_vars)}
        return values


def check_known(values: Mapping[str, Any]) -> None:
    """
    Check those of a job's fields whose values are known when the DAG is parsed: no templates, no XComs.

    :param values: by the names of :class:`~airflow_provider_rayjobs.client.submission.Submission`.
    :raises TypeError: a value has a wrong type; the message names it.
    :raises ValueError: a value is wrong; the message names it.
    """
    for name, given in values.items():
        value = _as_rendered(name, given)
        if (name == "entrypoint" or value not in (None, "")) and _is_known(value):
            CHECKS[name](value)


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a job's rendered fields that have a value; raises as :func:`check_known`."""
    check_known(values)
    rendered = {name: _as_rendered(name, value) for name, value in values.items()}
    return {name: value for name, value in rendered.items() if value not in (None, "")}


def check_known_id(submission_id: Any) -> None:
    """Check the id of a job that must have one, if it is known when the DAG is parsed."""
    if _is_known(submission_id):
        if is_not_given(submission_id):
            raise ValueError(f"submission_id is {submission_id!r}: it must be the id of a Ray job")
        check_submission_id(submission_id)


def _check_result_path(value: Any) -> None:
    if is_not_given(value):
        return
    from airflow_provider_rayjobs.cluster.urls import storage_problem
    from airflow_provider_rayjobs.text.safe_text import without_logins

    if not isinstance(value, str):
        raise TypeError(f"result_path must be a string, the URL of a folder, not {type(value).__name__}")
    if not re.match("[a-z][a-z0-9+.-]+://", value):
        shown = without_logins(value)
        raise ValueError(f"result_path must be a URL such as s3://…, gs://… or file://…, not {shown!r}")
    if problem := storage_problem(value):
        raise ValueError(f"result_path {problem}")


def check_known_config(config: Any, applications: Any) -> None:
    """Check a config of Ray Serve, if all of it is known when the DAG is parsed; raises as ``read_config``."""
    if _is_known(config) and _is_known(applications):
        from airflow_provider_rayjobs.client.serve_config import read_config

        read_config(config, applications)


def _with_secrets(runtime_env: Mapping[str, Any], secret: Mapping[str, str]) -> dict[str, Any]:
    env_vars = runtime_env.get("env_vars") or {}
    if twice := sorted(env_vars.keys() & secret.keys()):
        raise ValueError(
            f"runtime_env['env_vars'] and secret_env_vars both contain {twice[0]!r}; remove it from one of the two"
        )
    return {**runtime_env, "env_vars": {**env_vars, **secret}}
