"""Decodes the list of all jobs, which grows without limit, while it arrives, in bounded memory; no I/O."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.answer_body import ANSWER_LIMIT, AnswerBodyError, TakePiece
from airflow_provider_rayjobs.client.answers import decode_json, error_of, has_too_many_parts, no_jobs_api
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.client.ids import LONGEST_SUBMISSION_ID
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.jobs import JobDetails

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.client.exchange import Flow, Response

LIST_PATH = "/api/jobs/"

#: Maximum size of a list, in bytes: about 500,000 jobs. A head fails at about 100,000.
LIST_LIMIT = 256 * 1024 * 1024

#: Seconds that a list may take. A head with 2 cores needs 32 s for 100,000 jobs.
LIST_WITHIN = 120.0

#: Maximum size of one job in the list, in characters.
JOB_LIMIT = ANSWER_LIMIT

#: Counts all actors that the head remembers, and returns none of them. Each submitted job has its own actor, so one
#: cheap request tells about how many jobs are on record. (Ray's state API, ``dashboard/modules/state/state_head.py``.)
ACTORS_PATH = "/api/v0/actors?limit=1&filter_keys=state&filter_predicates=%3D&filter_values=RESTARTING"

#: Most actors that Ray's state API returns at once.
MOST_ACTORS = 10_000

#: Returns the actors that are alive. The head's GCS selects them, so dead actors cost next to nothing.
ALIVE_PATH = f"/api/v0/actors?limit={MOST_ACTORS}&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"

#: In that answer. Each submitted job has an actor, which ends with the job; its name has the job's submission id
#: (``dashboard/modules/job/common.py``, ``JOB_ACTOR_NAME_TEMPLATE``). No JSON is decoded, because that takes longer.
_ACTOR = re.compile(r'"actor_id":')
_JOB_ACTOR = re.compile(r'"name":\s*"_ray_internal_job_actor_([^"\\]+)"')

#: Where a string or an object begins or ends; where a string ends, or a character in it is escaped.
_OUTSIDE = re.compile(r'[\[\]{}"]')
_INSIDE = re.compile(r'["\\]')

_GAP = re.compile(r"[\s,\[]*")
_decode = json.JSONDecoder().raw_decode


def read_list(
    begin: Callable[[], Callable[[dict[str, Any]], object]],
    *,
    repeatable: bool,
    skipped: Callable[[str], object] | None = None,
) -> Flow[int]:
    """
    Read the list of all jobs (``GET /api/jobs/``).

    :param begin: called for each attempt; what it returns takes each job, as decoded JSON, and may raise ValueError.
    :param repeatable: whether to retry when contact is lost.
    :param skipped: called for each job that is too large to be read, with what is wrong and which job it follows; the
        others are read. Without it, such a job makes the list unusable.
    :return: the number of jobs.
    :raises RayJobsError: there is no answer, or it does not come from the Jobs API.
    """
    reader: _ListReader | None = None

    def receive() -> TakePiece:
        nonlocal reader
        reader = _ListReader(begin(), skipped)
        return reader.feed

    response = yield Request(
        "GET", LIST_PATH, repeatable=repeatable, receive=receive, limit=LIST_LIMIT, within=LIST_WITHIN
    )
    if response.status != 200 or reader is None:
        raise error_of(response)
    return reader.close(response)


def list_jobs() -> Flow[list[JobDetails]]:
    """Read all jobs on the cluster's record (``GET /api/jobs/``), including drivers that were not submitted."""
    jobs: list[JobDetails] = []

    def begin() -> Callable[[dict[str, Any]], object]:
        jobs.clear()
        return lambda data: jobs.append(JobDetails.from_json(data))

    yield from read_list(begin, repeatable=True)
    return jobs


class _UnreadableError(AnswerBodyError):
    """One object of the list can't be decoded."""


class _Skip:
    """Finds the end of an object without decoding it."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str, at: int) -> int:
        """Return the position after the object's end; -1 if it is in the next piece."""
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            match = (_INSIDE if self._in_string else _OUTSIDE).search(text, at)
            if match is None:
                return -1
            at = match.end()
            if match[0] == "\\":
                self._escaped = True
            elif match[0] == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if match[0] in "[{" else -1
                if self._depth == 0:
                    return at
        return -1


class _ListReader:
    """
    Decodes a list of objects piece by piece.

    :param take: takes each object, and may raise ValueError.
    :param skipped: as of :func:`read_list`.
    """

    def __init__(
        self, take: Callable[[dict[str, Any]], object], skipped: Callable[[str], object] | None = None
    ) -> None:
        self._take = take
        self._skipped = skipped
        self._skip: _Skip | None = None
        self._last: Any = None  # the last submission id
        self._text = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._buffer = ""
        self._try_at = 0  # decode when the buffer has at least this many characters
        self._number = 0

    def feed(self, data: bytes) -> None:
        """
        Take the next bytes of the answer.

        :raises AnswerBodyError: the answer is not a list of objects, or one of them is too large.
        """
        self._buffer += self._text(data)
        if len(self._buffer) < self._try_at:
            return
        if self._skip is not None and not self._skips(0):
            return
        if self._number == 0 and self._buffer.lstrip()[:1] not in ("", "["):
            raise AnswerBodyError("it is not a list")
        if has_too_many_parts(self._buffer) and not self._may_skip("it has a job with too many parts", self._next(0)):
            return
        if not self._decode_all():
            return
        if len(self._buffer) > JOB_LIMIT:
            problem = f"it has a job of more than {JOB_LIMIT:,} characters"
            if not self._may_skip(problem, self._next(0)):
                return
        self._try_at = len(self._buffer) * 2  # so that a large job isn't decoded again with each piece

    def _decode_all(self) -> bool:
        """Decode the jobs in the buffer; return False if one is skipped whose end is in the next piece."""
        start = 0
        while (at := self._next(start)) < len(self._buffer) and self._buffer[at] != "]":
            try:
                start = self._decode_at(at)
            except json.JSONDecodeError:
                break  # the rest of the job is in the next piece
            except _UnreadableError as e:
                if not self._may_skip(str(e), at):
                    return False
                start = 0
        self._buffer = self._buffer[start:]
        return True

    def _may_skip(self, problem: str, at: int) -> bool:
        """
        Skip the job at a position; return whether its end is already here.

        :raises AnswerBodyError: no job may be skipped, or there is none.
        """
        if self._skipped is None or self._buffer[at : at + 1] != "{":
            raise AnswerBodyError(problem)
        after = (
            f"after the job {self._last[:LONGEST_SUBMISSION_ID]!r}"
            if isinstance(self._last, str)
            else "at the beginning"
        )
        self._skipped(f"{problem}, {after}")
        self._number += 1
        self._skip = _Skip()
        return self._skips(at)

    def _skips(self, at: int) -> bool:
        end = -1 if self._skip is None else self._skip.feed(self._buffer, at)
        self._buffer = "" if end < 0 else self._buffer[end:]
        self._try_at = 0
        if end >= 0:
            self._skip = None
        return end >= 0

    def _decode_at(self, at: int) -> int:
        try:
            job, end = _decode(self._buffer, at)
        except RecursionError:
            raise _UnreadableError("it is nested too deeply") from None
        except json.JSONDecodeError:
            raise
        except ValueError as e:  # a number with thousands of digits
            raise _UnreadableError(f"it contains a number that can't be read ({e})") from None
        if not isinstance(job, dict):
            raise AnswerBodyError("it contains something other than objects")
        try:
            self._take(job)
        except ValueError as e:
            raise AnswerBodyError(f"it contains {e}") from None
        self._number += 1
        self._last = job.get("submission_id")
        return end

    def _next(self, start: int) -> int:
        match = _GAP.match(self._buffer, start)
        return match.end() if match else start

    def close(self, response: Response) -> int:
        """
        Return the number of objects.

        :raises RayProtocolError: the list is incomplete or malformed.
        """
        self._try_at = 0
        try:
            self.feed(b"")
        except AnswerBodyError as e:
            raise no_jobs_api(response, f"a malformed list of jobs: {e}") from None
        if self._skip is not None or "".join(self._buffer.split()) != ("]" if self._number else "[]"):
            raise no_jobs_api(response, "an incomplete or malformed list of jobs")
        return self._number


def count_actors() -> Flow[int | None]:
    """Return about how many jobs are on the cluster's record; None if the cluster does not say."""
    try:
        response = yield Request("GET", ACTORS_PATH, repeatable=False)
    except RayJobsError:
        return None
    try:
        total = decode_json(response.text)["data"]["result"]["total"]
    except (ValueError, LookupError, TypeError):
        return None
    return total if isinstance(total, int) else None


def live_jobs() -> Flow[tuple[set[str], int] | None]:
    """
    Return the submission ids of the jobs whose actors are alive, and the number of all actors that are alive.

    A job whose actor is not alive waits, or has ended. None if the cluster does not say, or has too many actors.
    """
    try:
        response = yield Request("GET", ALIVE_PATH, repeatable=False)
    except RayJobsError:
        return None
    text = response.text
    number = sum(1 for _ in _ACTOR.finditer(text))
    return (set(_JOB_ACTOR.findall(text)), number) if response.status == 200 and number < MOST_ACTORS else None
