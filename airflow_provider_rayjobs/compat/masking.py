"""Registers secrets with Airflow's masker, and removes them from text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import redact
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_1_PLUS,
)

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.cluster.extra import read_json
from airflow_provider_rayjobs.compat.versions import ONLY_3_0, triggerer_ends
from airflow_provider_rayjobs.text.job_secrets import MOST_TEXTS, JobSecrets

# ``common.compat`` has this from 1.22 on, which the constraints of Airflow up to 3.3.2 do not allow.
if TYPE_CHECKING or AIRFLOW_V_3_1_PLUS:
    from airflow.sdk.log import mask_secret
elif AIRFLOW_V_3_0_PLUS:
    from airflow.sdk.execution_time.secrets_masker import mask_secret
else:
    from airflow.utils.log.secrets_masker import mask_secret

if TYPE_CHECKING:
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.cluster.extra import AirflowConnection
    from airflow_provider_rayjobs.jobs import JobDetails

_PLACEHOLDER = "not a secret"

#: Airflow 3.0 masks no shorter secrets, and warns about each, even in the output of a command.
SHORTEST_MASKED = 5 if ONLY_3_0 else 1


def mask_extra(connection: AirflowConnection) -> None:
    """Have Airflow mask what it considers sensitive in a connection's extra, except where tokens come from."""
    with contextlib.suppress(ValueError):
        extra = read_json(connection.extra or "{}")  # Airflow masks no numbers
        if isinstance(extra, dict):
            _mask_sensitive({key: value for key, value in extra.items() if key not in ("token_file", "token_callable")})


def register_cluster(cluster: ClusterConnection) -> None:
    """Have Airflow mask the connection's secrets wherever it shows text, also tokens that are fetched later."""
    for secret in cluster.masked:
        _mask(secret)
    _mask_sensitive(cluster.metadata)
    _mask_sensitive(cluster.headers)
    for token in cluster.rotating:
        token.register = _mask


def register_env_vars(env_vars: object, listed: Iterable[str] = ()) -> None:
    """
    Have Airflow mask environment variables of a job wherever it shows text.

    :param env_vars: the variables; those with names that Airflow considers sensitive are masked.
    :param listed: names of other variables to mask.
    """
    if not isinstance(env_vars, Mapping):
        return
    texts: dict[Any, Any] = {
        name: value for name, value in env_vars.items() if isinstance(value, str) and len(value) >= SHORTEST_MASKED
    }
    secret: list[Any] = [texts[name] for name in listed if name in texts]
    _mask_sensitive(texts)
    if secret:
        _mask(secret)


def _mask_sensitive(values: Mapping[str, Any]) -> None:
    """
    Have Airflow mask values whose names it considers sensitive, at any level.

    Its masker would select these by itself, but from 3.1 on it also warns about short values with other names.
    """
    sensitive = set(sensitive_names(values))
    for name, value in values.items():
        if isinstance(value, Mapping):
            _mask_sensitive(value)
        elif name in sensitive:
            _mask(value)


def _mask(secret: Any) -> None:
    """Have Airflow mask a secret, unless this triggerer is shutting down."""
    if not triggerer_ends():
        mask_secret(secret)


def public(text: str) -> str:
    """
    Return a job's text without secrets.

    Airflow masks its log files by itself, but not every copy of them: the LocalExecutor of 3.x copies a log to the
    scheduler's output unmasked.
    """
    return str(redact(text))


def public_for(job: JobDetails | None) -> Callable[[str], str]:
    """
    Return a function that removes secrets from a job's text: the job's own, and those that this process knows.

    :param job: the job; None if nothing is known about it.
    """
    if job is None:
        return public
    secrets = JobSecrets(_secret_values(job), job.runtime_env)
    return lambda text: public(secrets.public(text))


def _secret_values(job: JobDetails) -> list[str]:
    """Return the values of a job's secret environment variables: sensitive by name, or listed by the author."""
    env_vars = job.runtime_env.get("env_vars")
    if not isinstance(env_vars, Mapping):
        return []
    texts = {str(name): value for name, value in env_vars.items() if isinstance(value, str)}
    if len(texts) > MOST_TEXTS:
        return list(texts.values())
    secret = {*(job.metadata.get(keys.SECRET_ENV_VARS) or "").split(","), *sensitive_names(texts)}
    return [value for name, value in texts.items() if name in secret]


def sensitive_names(names: Iterable[Any]) -> list[str]:
    """Return the names of variables that Airflow considers sensitive (``[core] sensitive_var_conn_names``)."""
    shown: Any = redact(dict.fromkeys(names, _PLACEHOLDER))
    return [name for name, value in shown.items() if value != _PLACEHOLDER]
