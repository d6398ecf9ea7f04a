"""
The submission ids and the metadata by which a task instance finds its own Ray jobs again, without stored state.

A try's id is computed from the deployment, the task instance and the try number, before the submission. So the same
try, and each later one, can compute it again. Ray refuses a second job with the same id.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_rayjobs import metadata as keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_rayjobs.jobs import JobDetails

#: The metadata that all tries of one generation share. A user's clear begins a new generation and raises ``max_tries``.
#: ``retries`` is no such mark, because the DAG file may change it at any time.
_GENERATION = (keys.MAX_TRIES, keys.RUN_STARTED)

#: Maximum length of an id before its digest. The whole id has less than 100 characters.
_LONGEST_PREFIX = 70


@dataclass(frozen=True)
class TaskIdentity:
    """
    One submission by one try of a task instance. Most tries make only one.

    :param deployment: identifies this Airflow among those that share a cluster.
    :param map_index: -1 for a task that is not mapped.
    :param try_number: number of the try, from 1.
    :param max_tries: Airflow's ``max_tries``, which a user's clear raises.
    :param run_started: start of the DAG run, which differs after the run was deleted and created again.
    :param number: number of the submission within its try, from 1.
    """

    deployment: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int
    run_started: str
    number: int = 1

    @property
    def key(self) -> str:
        """Digest of the task instance, the same for all its tries."""
        return _digest(self.deployment, self.dag_id, self.run_id, self.task_id, str(self.map_index))

    @property
    def attempt_key(self) -> str:
        """Digest of this submission."""
        return _digest(self.key, self._label(self.try_number), self.run_started)

    @property
    def generation(self) -> str:
        """Digest of what the submissions of all tries since the last clear share."""
        mine = self.metadata()
        return _digest(self.key, *(mine[name] for name in _GENERATION))

    def submission_id(self, try_number: int | None = None) -> str:
        """Return the id of the submission with this number in the given try, by default in this try."""
        label = self._label(try_number)
        mapped = f"-m{self.map_index}" if self.map_index >= 0 else ""
        names = f"{_clean(self.dag_id, 18)}-{_clean(self.task_id, 16)}{mapped}-{_clean(self.run_id, 24)}-t{label}"
        return f"{names[:_LONGEST_PREFIX]}-{_digest(self.key, label)}"

    def second_submission_id(self, first: str, try_number: int | None = None) -> str:
        """Return the id to use if another submission of this task instance already has the first one."""
        label = self._label(try_number)
        return f"{first[:_LONGEST_PREFIX]}-t{label}-{_digest(self.key, label, self.run_started)[:12]}"

    def _label(self, try_number: int | None = None) -> str:
        """Return the try number, or for the third submission of the second try ``2.3``."""
        number = self.try_number if try_number is None else try_number
        return f"{number}.{self.number}" if self.number > 1 else f"{number}"

    def metadata(self) -> dict[str, str]:
        """Return the metadata to store with the job of this submission."""
        number = {keys.NUMBER: str(self.number)} if self.number > 1 else {}
        return {
            keys.TASK: self.key,
            keys.DEPLOYMENT: self.deployment,
            keys.DAG_ID: self.dag_id,
            keys.RUN_ID: self.run_id,
            keys.TASK_ID: self.task_id,
            keys.MAP_INDEX: str(self.map_index),
            keys.TRY_NUMBER: str(self.try_number),
            keys.MAX_TRIES: str(self.max_tries),
            keys.RUN_STARTED: self.run_started,
            **number,
        }

    def owns(self, job: JobDetails) -> bool:
        """Whether any try of this task instance submitted a job."""
        return job.metadata.get(keys.TASK) == self.key

    def same_run(self, job: JobDetails) -> bool:
        """Whether a job of this task instance was submitted after the same start of the DAG run."""
        return job.metadata.get(keys.RUN_STARTED) == self.run_started

    def same_generation(self, job: JobDetails) -> bool:
        """Whether a job of this task instance was submitted since the last clear."""
        mine: Mapping[str, str] = self.metadata()
        return all(job.metadata.get(name) == mine[name] for name in _GENERATION)

    def same_number(self, job: JobDetails) -> bool:
        """Whether a job of this task instance has this submission's number within its try."""
        return job.metadata.get(keys.NUMBER, "1") == str(self.number)

    @staticmethod
    def is_of_several(job: JobDetails) -> bool:
        """Whether a job is not the first submission of its try."""
        return keys.NUMBER in job.metadata

    def is_before(self, job: JobDetails) -> bool:
        """Whether a later try of this task instance submitted a job: then this one is over."""
        number = job.metadata.get(keys.TRY_NUMBER, "")
        return self.owns(job) and self.same_run(job) and number.isdecimal() and int(number) > self.try_number

    def same_try(self, job: JobDetails) -> bool:
        """Whether a job of this task instance was submitted by this try."""
        return self.same_run(job) and job.metadata.get(keys.TRY_NUMBER) == str(self.try_number)


def _digest(*parts: str) -> str:
    """Return 20 hex digits. Each part is hashed with its length, so different parts never make the same text."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _clean(text: str, length: int) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:length]
