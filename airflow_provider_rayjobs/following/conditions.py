"""Conditions that the sensors wait for, without I/O: each check is a flow, which a worker and a triggerer run alike."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.client.serve import get_serve_details
from airflow_provider_rayjobs.client.submission import Submission, resources_metadata
from airflow_provider_rayjobs.exceptions import (
    RayJobFailedError,
    RayJobLostError,
    RayJobNotFoundError,
    RayJobStoppedError,
    RayServeDeployError,
)
from airflow_provider_rayjobs.following.events import may_run_hint
from airflow_provider_rayjobs.following.serving import reason_of
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_rayjobs.client.exchange import Flow


#: Trivial jobs that may fail before the sensor fails.
PROBE_ATTEMPTS = 10


@dataclass
class JobReaches:
    """
    Is met when a job has one of the target statuses.

    :param submission_id: the job.
    :param targets: the target statuses.
    """

    submission_id: str
    targets: list[str]
    #: The job as the last check found it.
    job: JobDetails | None = field(default=None, init=False, repr=False)

    @property
    def current_id(self) -> str:
        """Id of the job that is checked."""
        return self.submission_id

    def look(self) -> Flow[bool]:
        """
        Check once.

        :raises RayJobFailedError: if the job FAILED, and that is not a target status.
        :raises RayJobStoppedError: if it ended with another status that is not a target.
        :raises RayJobLostError: if the cluster no longer knows the job, but did before.
        """
        try:
            job = yield from verbs.get_job_info(self.submission_id)
        except RayJobNotFoundError as e:
            return self.missing(e)
        return self.reached(job)

    def missing(self, error: RayJobNotFoundError) -> bool:
        """Handle a check that found no job; raises the errors of :meth:`look`."""
        if self.job is None:
            return False  # it may be submitted later
        raise RayJobLostError(
            f"{error}; it was there before, so its head restarted, or the job was deleted. "
            f"{may_run_hint(self.submission_id, self.job)}",
            submission_id=self.submission_id,
            node_id=self.job.driver_node_id,
            node_ip=self.job.driver_ip,
        ) from error

    def reached(self, job: JobDetails) -> bool:
        """Handle a check that found the job; raises the errors of :meth:`look`."""
        self.job = job
        if job.status in self.targets:
            return True
        if job.status.is_terminal:
            raise self._missed(job)
        return False

    def _missed(self, job: JobDetails) -> RayJobFailedError | RayJobStoppedError:
        kind = RayJobFailedError if job.status is JobStatus.FAILED else RayJobStoppedError
        said = f": {job.message.strip()}" if job.message else ""
        return kind(
            f"Ray job {self.submission_id} ended {job.status} instead of {' or '.join(self.targets)}{said}",
            submission_id=self.submission_id,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON."""
        return {"submission_id": self.submission_id, "targets": self.targets}


@dataclass
class ServeReaches:
    """
    Is met when an application of Ray Serve has one of the target statuses.

    :param application: its name.
    :param targets: the target statuses.
    :param public_for: returns what removes the secrets of the applications' configs from a text.
    """

    application: str
    targets: list[str]
    public_for: Callable[[Any], Callable[[str], str]]
    #: There is no job.
    job: JobDetails | None = field(default=None, init=False, repr=False)
    submission_id: str = field(default="", init=False, repr=False)
    current_id: str = field(default="", init=False, repr=False)

    def look(self) -> Flow[bool]:
        """
        Check once.

        :raises RayServeDeployError: if the application can't be deployed, and that is not a target status.
        """
        details = yield from get_serve_details()
        found = details.applications.get(self.application)
        if found is None:
            return False
        if found.status in self.targets:
            return True
        if found.status == "DEPLOY_FAILED":
            said = reason_of(found, self.public_for([found.config]))
            raise RayServeDeployError(
                f"waited for {' or '.join(self.targets)}: {said}", statuses={self.application: found.status}
            )
        return False


@dataclass
class ClusterRunsJobs:
    """
    Is met when a trivial job has succeeded on the cluster, with the requested resources.

    ``/api/version`` answers long before jobs can run, so only a job proves that they can. The job's record is kept: if
    a job is deleted within a second of its end, Ray 2.60 records a failed job with the same id.

    :param submission_id: id of the trivial job.
    :param resources: the ``entrypoint_…`` fields that the cluster must be able to reserve.
    :param metadata: stored with the trivial job.
    """

    submission_id: str
    resources: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: The job as the last check found it.
    job: JobDetails | None = field(default=None, init=False, repr=False)
    _attempt: int = field(default=1, init=False, repr=False)

    @property
    def current_id(self) -> str:
        """Id of the current job; after each failure, another one is submitted."""
        return self.submission_id if self._attempt == 1 else f"{self.submission_id}.{self._attempt}"

    def look(self) -> Flow[bool]:
        """
        Check once: submit the job, or read its status.

        :raises RayJobFailedError: if :data:`PROBE_ATTEMPTS` jobs have failed.
        """
        while True:
            try:
                job = yield from verbs.get_job_info(self.current_id)
            except RayJobNotFoundError:
                yield from self._submit()
                return False
            self.job = job
            if not job.status.is_terminal:
                return False
            if job.status is JobStatus.SUCCEEDED:
                return True
            if self._attempt == PROBE_ATTEMPTS:
                raise RayJobFailedError(
                    f"{PROBE_ATTEMPTS} trivial jobs failed on the cluster; the last one, {self.current_id}, ended "
                    f"{job.status}: {job.message}",
                    submission_id=self.current_id,
                )
            self._attempt += 1

    def _submit(self) -> Flow[None]:
        submission = Submission(
            entrypoint="true", submission_id=self.current_id, metadata=self.metadata, **self.resources
        )
        submission = replace(submission, metadata={**self.metadata, **resources_metadata(submission)})
        # A job with this id was submitted for the same purpose: the id is derived from the task.
        yield from verbs.submit_job(submission, lambda job: True, patience=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON."""
        return {
            "submission_id": self.submission_id,
            "resources": dict(self.resources),
            "metadata": dict(self.metadata),
        }
