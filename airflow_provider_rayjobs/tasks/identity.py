"""
Who submits: the ids and the metadata by which a task instance finds its own Ray jobs again, without a store.

The id of a try is a function of the deployment, the task instance and the try number, so that the same try, and every
later one, computes it again. It is chosen before the submission; Ray refuses a second job of the same id.
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

#: What differs between the generations of a task instance. A user's clear begins a new one and raises ``max_tries``;
#: ``retries`` may be edited at any time.
_GENERATION = (keys.MAX_TRIES, keys.RUN_STARTED)

#: Longest prefix of an id, before its digest; the whole stays under 100 characters.
_LONGEST_PREFIX = 70


@dataclass(frozen=True)
class TaskIdentity:
    """
    A submission of a try of a task instance; most tries make one only.

    :param deployment: what tells two Airflow deployments apart that share a cluster.
    :param map_index: -1 for a task that is not mapped.
    :param try_number: from 1.
    :param max_tries: Airflow's ``max_tries``; a user's clear raises it.
    :param run_started: start of the DAG run, which tells a deleted and recreated run from the first one.
    :param number: which of its try's submissions it is, from 1.
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
        """Digest of this very submission."""
        return _digest(self.key, self._label(self.try_number), self.run_started)

    def submission_id(self, try_number: int | None = None) -> str:
        """Return the id of the submission with the same number in a try, by default this one."""
        label = self._label(try_number)
        mapped = f"-m{self.map_index}" if self.map_index >= 0 else ""
        names = f"{_clean(self.dag_id, 18)}-{_clean(self.task_id, 16)}{mapped}-{_clean(self.run_id, 24)}-t{label}"
        return f"{names[:_LONGEST_PREFIX]}-{_digest(self.key, label)}"

    def second_submission_id(self, first: str, try_number: int | None = None) -> str:
        """Return the id for when the first one is taken by another submission of this same task instance."""
        label = self._label(try_number)
        return f"{first[:_LONGEST_PREFIX]}-t{label}-{_digest(self.key, label, self.run_started)[:12]}"

    def _label(self, try_number: int | None = None) -> str:
        """Return what tells a try's submissions from others': 2, or 2.3 for the third one of the second try."""
        number = self.try_number if try_number is None else try_number
        return f"{number}.{self.number}" if self.number > 1 else f"{number}"

    def metadata(self) -> dict[str, str]:
        """Return what the job of this submission carries."""
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
        """Whether a job belongs to this task instance, whatever its try."""
        return job.metadata.get(keys.TASK) == self.key

    def same_run(self, job: JobDetails) -> bool:
        """Whether a job of this task instance was submitted by this same life of the DAG run."""
        return job.metadata.get(keys.RUN_STARTED) == self.run_started

    def same_generation(self, job: JobDetails) -> bool:
        """Whether a job of this task instance was submitted by an earlier try since the last clear."""
        mine: Mapping[str, str] = self.metadata()
        return all(job.metadata.get(name) == mine[name] for name in _GENERATION)

    def same_number(self, job: JobDetails) -> bool:
        """Whether a job of this task instance has the number of this submission in its own try."""
        return job.metadata.get(keys.NUMBER, "1") == str(self.number)

    @staticmethod
    def is_of_several(job: JobDetails) -> bool:
        """Whether the try of a job made several submissions, and this is not the first."""
        return keys.NUMBER in job.metadata

    def same_try(self, job: JobDetails) -> bool:
        """Whether a job of this task instance was submitted by this try."""
        return self.same_run(job) and job.metadata.get(keys.TRY_NUMBER) == str(self.try_number)


def _digest(*parts: str) -> str:
    """Return 20 hex digits; parts are told apart by their lengths, so no two lists of parts are the same text."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _clean(text: str, length: int) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:length]
