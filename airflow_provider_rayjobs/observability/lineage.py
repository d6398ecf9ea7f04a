"""
Lineage with OpenLineage: what Airflow's events tell of a job, and what the job is told of the run of its task.

The OpenLineage provider is optional. It is imported only for an event, and for a job that is told of its task's run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs import __version__
from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.submission import command_line
from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.following.events import raise_for_outcome
from airflow_provider_rayjobs.text.safe_text import safe_text, without_logins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_rayjobs.following.events import JobEvent

log = logging.getLogger(__name__)

#: What an event's facet says of its origin: the package and its version, as a package URL.
PRODUCER = f"pkg:pypi/airflow-provider-rayjobs@{__version__}"

#: Maximum length of an error in an event, in characters.
LONGEST_MESSAGE = 4000

INSTALL = "pip install 'airflow-provider-rayjobs[openlineage]' on the Airflow workers"

#: Variables from which OpenLineage's clients and integrations read the parent run.
PARENT, ROOT_PARENT, CONTEXT = "OPENLINEAGE_PARENT_ID", "OPENLINEAGE_ROOT_PARENT_ID", "OPENLINEAGE_CONTEXT"

#: Beginnings of the variables from which OpenLineage's clients read where to send events, and whether at all.
_TRANSPORT = "OPENLINEAGE__TRANSPORT"
_OF_TRANSPORT = (
    *(_TRANSPORT, "OPENLINEAGE_URL", "OPENLINEAGE_API_KEY", "OPENLINEAGE_ENDPOINT"),
    *("OPENLINEAGE_CONFIG", "OPENLINEAGE_DISABLED"),
)

#: Ends of the names of those whose values are secret.
_SECRET = ("__API_KEY", "__CUSTOM_HEADERS")


@dataclass
class JobFacts:
    """
    What the process of a task knows of its job.

    :param submission_id: the job; empty if there is none yet.
    :param address: the cluster's address; empty if it is not known.
    :param ray_version: version of Ray on the cluster; empty if it is not known.
    :param event: how the job ended; None if it runs, or if that is not known.
    """

    submission_id: str = ""
    address: str = ""
    ray_version: str = ""
    event: JobEvent | None = None


def is_installed() -> bool:
    """Whether the OpenLineage provider is installed; imports nothing of it."""
    return importlib.util.find_spec("airflow.providers.openlineage") is not None


def submission_fields(entrypoint: Any, conn_id: str, facts: JobFacts) -> dict[str, str]:
    """
    Return the fields of the job facet, as far as they are known.

    :param entrypoint: as the operator has it; only its digest is told, because it may contain secrets.
    :param conn_id: id of the cluster's connection; empty if KubeRay makes the cluster.
    """
    known = {
        "entrypointDigest": entrypoint_digest(entrypoint),
        "submissionId": facts.submission_id,
        "connection": conn_id,
        "address": without_logins(facts.address),
        "rayVersion": facts.ray_version,
    }
    return {name: value for name, value in known.items() if value}


def entrypoint_digest(entrypoint: Any) -> str:
    """Return the digest of a command line, or of a list of words; empty for a value that is not rendered."""
    words = [entrypoint] if isinstance(entrypoint, str) else entrypoint
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        return ""
    return f"sha256:{hashlib.sha256(command_line(entrypoint).encode(errors='surrogatepass')).hexdigest()}"


def outcome_fields(event: JobEvent) -> dict[str, Any]:
    """Return the fields of the run facet: how a job ended, and the error of one that did not succeed."""
    message = ""
    try:
        raise_for_outcome(event)
    except RayJobsError as e:
        message = safe_text(without_logins(masking.public(str(e))))
    fields = {
        "submissionId": event.submission_id,
        "status": event.outcome.name,
        "exitCode": event.exit_code,
        "cause": event.failure.cause if event.failure else event.error_type,
        "message": message[:LONGEST_MESSAGE],
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


def operator_lineage(submission: Mapping[str, str], outcome: Mapping[str, Any] | None) -> Any:
    """
    Return what OpenLineage's listener adds to its event.

    :param submission: the fields of the job facet.
    :param outcome: the fields of the run facet; None if there is no outcome yet.
    :return: an ``OperatorLineage`` of the OpenLineage provider.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_rayjobs.observability.facets import RayJobsOutcomeRunFacet, RayJobsSubmissionJobFacet

    run = {} if outcome is None else {"rayjobs_outcome": RayJobsOutcomeRunFacet(**{"producer": PRODUCER, **outcome})}
    job = {"rayjobs_submission": RayJobsSubmissionJobFacet(**{"producer": PRODUCER, **submission})}
    return OperatorLineage(job_facets=job, run_facets=run)


def with_run_of_task(job: Mapping[str, Any], ti: Any, *, parent: bool, transport: bool) -> dict[str, Any]:
    """
    Return a job whose environment names its task's run as the parent of the job's runs, and where to send events.

    What the author has set stays. Secrets are masked as the job's own.

    :param job: the arguments of :meth:`RayJobHook.submit_job`.
    :param ti: the task instance.
    :param parent: whether the parent run is told.
    :param transport: whether it is told where to send events.
    """
    runtime_env = job["runtime_env"] or {}
    env_vars = runtime_env.get("env_vars") or {}
    added: dict[str, str] = {}
    if parent and not _are_set("parent run", env_vars, (PARENT, ROOT_PARENT, CONTEXT)):
        added |= _of_parent_run(ti)
    if transport and not _are_set("transport", env_vars, _OF_TRANSPORT):
        added |= _of_airflows_transport()
    if not added:
        return dict(job)
    secret = [name for name in added if name.endswith(_SECRET)]
    masking.register_env_vars(added, secret)
    metadata = job["metadata"]
    if secret:
        listed = [name for name in (metadata.get(keys.SECRET_ENV_VARS), *secret) if name]
        metadata = {**metadata, keys.SECRET_ENV_VARS: ",".join(listed)}
    return {**job, "metadata": metadata, "runtime_env": {**runtime_env, "env_vars": {**env_vars, **added}}}


def _are_set(what: str, env_vars: Iterable[str], beginnings: tuple[str, ...]) -> bool:
    present = sorted(name for name in env_vars if name.startswith(beginnings))
    if present:
        log.info("The job is not told of OpenLineage's %s: runtime_env already has %s", what, ", ".join(present))
    return bool(present)


def _of_parent_run(ti: Any) -> dict[str, str]:
    """Return the ids of the task's run and of the DAG's run: ``namespace/name/run id``."""
    from airflow.providers.openlineage.plugins import macros

    return {PARENT: macros.lineage_parent_id(ti), ROOT_PARENT: macros.lineage_root_parent_id(ti)}


def _of_airflows_transport() -> dict[str, str]:
    """Return the variables that have a client send its events where Airflow sends its own."""
    from airflow.providers.openlineage.plugins.listener import get_openlineage_listener

    transport = get_openlineage_listener().adapter.get_or_create_openlineage_client().transport
    kinds = [transport.kind]
    added: dict[str, str] = {}
    if transport.kind == "http":
        added = dict(_of_http(transport, _TRANSPORT))
    elif transport.kind == "composite":
        kinds = [part.kind for part in transport.transports]
        parts = [part for part in transport.transports if part.kind == "http"]
        for number, part in enumerate(parts, 1):
            added |= _of_http(part, f"{_TRANSPORT}__TRANSPORTS__HTTP{number}")
        if parts:
            added[f"{_TRANSPORT}__TYPE"] = "composite"
            added[f"{_TRANSPORT}__CONTINUE_ON_FAILURE"] = json.dumps(bool(transport.config.continue_on_failure))
    if others := sorted({kind for kind in kinds if kind != "http"}):
        log.info(
            "The job is not told of OpenLineage's transport %s: only http is of use on a cluster", ", ".join(others)
        )
    return added


def _of_http(transport: Any, prefix: str) -> Iterator[tuple[str, str]]:
    config = transport.config
    yield f"{prefix}__TYPE", "http"
    yield f"{prefix}__URL", transport.url
    yield f"{prefix}__ENDPOINT", transport.endpoint
    yield f"{prefix}__TIMEOUT", str(transport.timeout)
    if transport.compression:
        yield f"{prefix}__COMPRESSION", str(transport.compression)
    if bearer := config.auth.get_bearer():
        yield f"{prefix}__AUTH__TYPE", "api_key"
        yield f"{prefix}__AUTH__API_KEY", bearer.removeprefix("Bearer ")
    if config.custom_headers:
        yield f"{prefix}__CUSTOM_HEADERS", json.dumps(config.custom_headers)
