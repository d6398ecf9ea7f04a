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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_rayjobs.protocol import JobDetails

#: Metadata keys that begin so are the provider's.
METADATA_PREFIX = "airflow_"

#: Names of the job's secret environment variables, with commas between, for whoever shows the job's log.
SECRET_ENV_VARS_KEY = "airflow_secret_env_vars"  # noqa: S105 - no secret, but a name

#: Digest of the task instance, without its try.
TASK_KEY = "airflow_task"

#: What tells the generations of a task instance apart. A user's clear begins a new one, and raises ``max_tries``;
#: ``retries`` may be edited at any time.
_GENERATION = ("airflow_max_tries", "airflow_run_started")

#: Which of its try's submissions a job is; the first one has no such key.
_NUMBER_KEY = "airflow_submission_number"

#: Longest prefix of an id, before its digest; the whole stays under 100 characters.
_LONGEST_PREFIX = 70

#: Ids outside this set give a job that no route can reach again.
SUBMISSION_ID_PATTERN = re.compile(r"[A-Za-z0-9_.-]+")

#: Ray names a log file after the id, and file systems take no longer name.
LONGEST_SUBMISSION_ID = 240


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
        number = {_NUMBER_KEY: str(self.number)} if self.number > 1 else {}
        return {
            TASK_KEY: self.key,
            "airflow_deployment": self.deployment,
            "airflow_dag_id": self.dag_id,
            "airflow_run_id": self.run_id,
            "airflow_task_id": self.task_id,
            "airflow_map_index": str(self.map_index),
            "airflow_try_number": str(self.try_number),
            "airflow_max_tries": str(self.max_tries),
            "airflow_run_started": self.run_started,
            **number,
        }

    def owns(self, job: JobDetails) -> bool:
        """Whether a job belongs to this task instance, whatever its try."""
        return job.metadata.get(TASK_KEY) == self.key

    def same_run(self, job: JobDetails) -> bool:
        """Whether a job of this task instance was submitted by this same life of the DAG run."""
        return job.metadata.get("airflow_run_started") == self.run_started

    def same_generation(self, job: JobDetails) -> bool:
        """Whether a job of this task instance was submitted by an earlier try since the last clear."""
        mine: Mapping[str, str] = self.metadata()
        return all(job.metadata.get(name) == mine[name] for name in _GENERATION)

    def same_number(self, job: JobDetails) -> bool:
        """Whether a job of this task instance has the number of this submission in its own try."""
        return job.metadata.get(_NUMBER_KEY, "1") == str(self.number)

    @staticmethod
    def is_of_several(job: JobDetails) -> bool:
        """Whether the try of a job made several submissions, and this is not the first."""
        return _NUMBER_KEY in job.metadata

    def same_try(self, job: JobDetails) -> bool:
        """Whether a job of this task instance was submitted by this try."""
        return self.same_run(job) and job.metadata.get("airflow_try_number") == str(self.try_number)


def _digest(*parts: str) -> str:
    """Return 20 hex digits; parts are told apart by their lengths, so no two lists of parts are the same text."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _clean(text: str, length: int) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:length]


def names_no_job(submission_id: object) -> bool:
    """Whether an id is missing: None, or what a template makes of None, or nothing."""
    return submission_id is None or (isinstance(submission_id, str) and submission_id.strip() in ("", "None"))


def is_submission_id(value: object) -> bool:
    """Whether a cluster may call a job so: what :func:`check_submission_id` takes."""
    try:
        check_submission_id(value)
    except (TypeError, ValueError):
        return False
    return True


def check_submission_id(submission_id: object) -> str:
    """
    Return the id when Ray can route it.

    :raises ValueError: it holds other characters than letters, digits, ``_``, ``.`` and ``-``.
    :raises TypeError: it is no text.
    """
    if not isinstance(submission_id, str):
        raise TypeError(f"submission_id must be a text, not {submission_id!r}")
    if not SUBMISSION_ID_PATTERN.fullmatch(submission_id) or submission_id in (".", ".."):
        raise ValueError(
            f"submission_id {submission_id!r} can't be used: Ray finds a job again only when its id is made of "
            "letters, digits, '_', '.' and '-'"
        )
    if len(submission_id) > LONGEST_SUBMISSION_ID:
        raise ValueError(
            f"submission_id has {len(submission_id)} characters; Ray can't run jobs with more than "
            f"{LONGEST_SUBMISSION_ID}: {submission_id!r}"
        )
    return submission_id
