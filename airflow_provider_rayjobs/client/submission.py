"""Builds a submission from the arguments of ``submit_job``."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.checks import check_entrypoint, check_sizes, check_submission
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.client.ids import new_submission_id
from airflow_provider_rayjobs.client.plain_values import check_strings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.jobs import JobDetails


@dataclass(frozen=True)
class Submission:
    """
    The body of ``POST /api/jobs/`` (``JobSubmitRequest`` of Ray's ``dashboard/modules/job/common.py``).

    Fields that are None are not sent: older servers reject unknown fields.
    """

    entrypoint: str
    submission_id: str
    runtime_env: Mapping[str, Any] | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None
    entrypoint_resources: Mapping[str, float] | None = None
    entrypoint_label_selector: Mapping[str, str] | None = None

    def request(self) -> Request:
        """Return the request that submits this job."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        body = {key: dict(v) if isinstance(v, Mapping) else v for key, v in values.items() if v is not None}
        env_vars = (self.runtime_env or {}).get("env_vars") or {}
        secrets = tuple(str(value) for value in env_vars.values())
        return Request("POST", "/api/jobs/", json=body, repeatable=False, secrets=secrets)


def command_line(entrypoint: str | Sequence[str]) -> str:
    """Return an entrypoint as Ray runs it in a shell, and reports it; the words of a list are quoted."""
    return entrypoint if isinstance(entrypoint, str) else shlex.join(entrypoint)


def make_submission(
    cluster: ClusterConnection,
    *,
    entrypoint: str | Sequence[str],
    submission_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    submission_key: str | None = None,
    **fields: Any,
) -> tuple[Submission, Callable[[JobDetails], bool]]:
    """
    Build a submission, and a function that recognizes its job.

    :param cluster: its metadata takes precedence over the job's, as in Ray's client.
    :param entrypoint: a command line, or a list of words, which are quoted for the shell in which Ray runs them.
    :param submission_key: identifies this submission; random by default.
    :param fields: other fields of :class:`~airflow_provider_rayjobs.client.submission.Submission`.
    :return: the submission, and a function that returns whether a job was made by it.
    :raises ValueError: a value is invalid; the message names it.
    :raises TypeError: a value has the wrong type; the message names it.
    """
    check_entrypoint(entrypoint)
    if metadata is not None:
        check_strings("metadata", metadata)
    key = submission_key or secrets.token_hex(8)
    submission = Submission(
        entrypoint=command_line(entrypoint),
        submission_id=submission_id or new_submission_id(),
        metadata={**(metadata or {}), **cluster.metadata, keys.SUBMISSION: key},
        **fields,
    )
    check_submission(submission)
    submission = replace(submission, metadata={**submission.metadata, **resources_metadata(submission)})
    return submission, lambda job: job.metadata.get(keys.SUBMISSION) == key


def resources_metadata(job: Submission) -> dict[str, str]:
    """Return the metadata with the resources that the entrypoint asks for; Ray itself does not report them."""
    amounts = {"CPU": job.entrypoint_num_cpus, "GPU": job.entrypoint_num_gpus, "memory": job.entrypoint_memory}
    wanted = {name: amount for name, amount in {**amounts, **(job.entrypoint_resources or {})}.items() if amount}
    return {keys.RESOURCES: json.dumps(wanted)} if wanted else {}


def with_runtime_env(submission: Submission, runtime_env: Mapping[str, Any] | None) -> Submission:
    """
    Return a submission with a resolved ``runtime_env``: folders have become packages, and files lists.

    :raises ValueError: the resolved ``runtime_env`` is too large.
    """
    check_sizes(runtime_env, submission.metadata)
    return replace(submission, runtime_env=runtime_env)
