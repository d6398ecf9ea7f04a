"""Registers secrets with Airflow's masker, and removes them from text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from airflow_provider_rayjobs.text.safe_text import without_credentials

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

#: Most values that come and go which one process registers: tokens that rotate, tokens of clusters that are made for
#: one task, secrets of jobs that a hook submits. Airflow's masker never forgets a value. Each new one makes it slower,
#: in the triggerer also in the supervisor: with a thousand values, the next takes 50 ms. The text of a cluster's jobs
#: is masked without it, see :func:`public_for`.
MOST_PASSING = 100


class _Passing:
    """The values that come and go, and were registered by this process."""

    number = 0


def mask_extra(connection: AirflowConnection) -> None:
    """Have Airflow mask what it considers sensitive in a connection's extra, except where tokens come from."""
    with contextlib.suppress(ValueError):
        extra = read_json(connection.extra or "{}")  # Airflow masks no numbers
        if isinstance(extra, dict):
            fixed = {key: value for key, value in extra.items() if key not in ("token_file", "token_callable")}
            _mask(_sensitive(fixed))


def register_cluster(cluster: ClusterConnection, *, passing: bool = False) -> None:
    """
    Have Airflow mask the connection's secrets wherever it shows text, also tokens that are fetched later.

    :param passing: whether the cluster is one of many that come and go, each with a token of its own.
    """
    rotating = {known for token in cluster.rotating for known in token.recent}
    fixed = [secret for secret in cluster.masked if secret not in rotating]
    register = _mask_passing if passing else _mask
    register([*fixed, *_sensitive(cluster.metadata), *_sensitive(cluster.headers)])
    _mask_passing(rotating)
    for token in cluster.rotating:
        token.register = lambda text: _mask_passing([text])


def register_env_vars(env_vars: object, listed: Iterable[str] = (), *, passing: bool = False) -> None:
    """
    Have Airflow mask environment variables of a job wherever it shows text.

    :param env_vars: the variables; those with names that Airflow considers sensitive are masked.
    :param listed: names of other variables to mask.
    :param passing: whether this process may submit many jobs, each with secrets of its own.
    """
    if not isinstance(env_vars, Mapping):
        return
    texts: dict[Any, Any] = {
        name: value for name, value in env_vars.items() if isinstance(value, str) and len(value) >= SHORTEST_MASKED
    }
    register = _mask_passing if passing else _mask
    register([*(texts[name] for name in listed if name in texts), *_sensitive(texts)])


def _sensitive(values: Mapping[str, Any]) -> Iterator[str]:
    """
    Yield the texts under names that Airflow considers sensitive, at any level.

    Its masker would select these by itself, but from 3.1 on it also warns about short values with other names.
    """
    sensitive = set(sensitive_names(values))
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _sensitive(value)
        elif name in sensitive:
            yield from _texts(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _sensitive(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _mask(secrets: Iterable[str]) -> int:
    """
    Have Airflow mask secrets, unless this triggerer is shutting down; return the number of those that are new.

    The masker is asked what it knows. From Airflow 3.0 on, each registration is a request to the supervisor.
    """
    new: list[Any] = [secret for secret in dict.fromkeys(secrets) if redact(secret) != "***"]
    if not new or triggerer_ends():
        return 0
    mask_secret(new)
    return sum(redact(secret) != secret for secret in new)  # Airflow never masks some, such as very short ones


def _mask_passing(secrets: Iterable[str]) -> None:
    """Have Airflow mask secrets that come and go, as long as this process has registered few of them."""
    if _Passing.number < MOST_PASSING:
        _Passing.number += _mask(secrets)


def public(text: str) -> str:
    """
    Return a job's text without secrets.

    Airflow masks its log files by itself, but not every copy of them: the LocalExecutor of 3.x copies a log to the
    scheduler's output unmasked.
    """
    return str(redact(text))


def public_for(job: JobDetails | None, cluster: ClusterConnection | None = None) -> Callable[[str], str]:
    """
    Return a function that removes secrets from a job's text: the job's, its cluster's, and those that Airflow masks.

    :param job: the job; None if nothing is known about it.
    :param cluster: its cluster, whose tokens may change meanwhile.
    """
    return _public_for(JobSecrets() if job is None else JobSecrets(_secret_values(job), job.runtime_env), cluster)


def public_for_config(config: Any, cluster: ClusterConnection | None = None) -> Callable[[str], str]:
    """
    Return a function that removes secrets from what Ray Serve says, as :func:`public_for` does for a job.

    :param config: the configs of the applications.
    """
    return _public_for(JobSecrets(_secrets_in(config), config), cluster)


def _public_for(own: JobSecrets, cluster: ClusterConnection | None) -> Callable[[str], str]:
    known: tuple[str, ...] = ()
    of_cluster = JobSecrets()

    def shown(text: str) -> str:
        nonlocal known, of_cluster
        if cluster is not None and cluster.masked != known:
            known = cluster.masked
            of_cluster = JobSecrets(known)
        return public(of_cluster.public(own.public(text)))

    return shown


def register_config(config: Any) -> None:
    """Have Airflow mask what is sensitive in a config of Ray Serve: the texts under sensitive names, at any level."""
    _mask_passing(text for text in _secrets_in(config) if len(text) >= SHORTEST_MASKED)


def holds_secrets(config: Any) -> bool:
    """Whether a config of Ray Serve has anything that Airflow's database must not hold."""
    return any(_secrets_in(config)) or without_credentials(config) != config


def _secrets_in(value: Any) -> Iterator[str]:
    """Yield the texts under sensitive names in a JSON value, at any level."""
    if isinstance(value, Mapping):
        sensitive = set(sensitive_names(value))
        for name, item in value.items():
            yield from _all_texts(item) if name in sensitive else _secrets_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets_in(item)


def _all_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _all_texts(item)


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
