"""
The provider's own facets of OpenLineage; the folder ``schemas`` has their JSON schemas.

This is the only module that imports OpenLineage's client at its top. Only what OpenLineage's listener calls imports it.
"""

from __future__ import annotations

from typing import ClassVar

import attr
from openlineage.client.facet_v2 import JobFacet, RunFacet

SCHEMA_VERSION = "1-0-0"


def _schema_url(name: str) -> str:
    return f"urn:airflow-provider-rayjobs:{name}:{SCHEMA_VERSION}#/$defs/{name}"


@attr.define
class RayJobsSubmissionJobFacet(JobFacet):  # type: ignore[misc]
    """
    What was submitted, and to which cluster.

    :param entrypointDigest: ``sha256:`` and the digest of the entrypoint.
    :param submissionId: id of the Ray job.
    :param connection: id of the Airflow connection.
    :param address: the cluster's address, without credentials.
    :param rayVersion: version of Ray on the cluster.
    """

    entrypointDigest: str | None = None  # noqa: N815 - OpenLineage's style
    submissionId: str | None = None  # noqa: N815
    connection: str | None = None
    address: str | None = None
    rayVersion: str | None = None  # noqa: N815

    _additional_skip_redact: ClassVar[list[str]] = ["entrypointDigest"]

    @staticmethod
    def _get_schema() -> str:
        return _schema_url("RayJobsSubmissionJobFacet")


@attr.define
class RayJobsOutcomeRunFacet(RunFacet):  # type: ignore[misc]
    """
    How the job ended.

    :param submissionId: id of the Ray job.
    :param status: Ray's status, or why the task no longer follows the job.
    :param exitCode: exit code of the entrypoint.
    :param cause: why the job FAILED, in Ray's words.
    :param message: the error, without secrets.
    """

    submissionId: str  # noqa: N815
    status: str
    exitCode: int | None = None  # noqa: N815
    cause: str | None = None
    message: str | None = None

    @staticmethod
    def _get_schema() -> str:
        return _schema_url("RayJobsOutcomeRunFacet")
