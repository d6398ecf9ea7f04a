"""Which ends of jobs a watcher has told, in bounded space; no I/O."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from airflow_provider_rayjobs.client.ended import EndedJob

#: Milliseconds for which ends are kept one by one. An end may come this much later than others with a later time: the
#: clocks of a cluster's nodes differ, and a job's last status is written after its end.
SLACK = 600_000

#: Most ends that are kept one by one.
MOST = 1000


#: Most ends in the future that are told: the clocks of nodes may be ahead, but such ends must not push out all others.
MOST_AHEAD = 300


def mark_of(job: EndedJob) -> str:
    """
    Return a short text for the end of a job.

    Ray may write a job's end again, with a later time. But an id may belong to another job once its record was deleted,
    and that has another start.
    """
    return _digest(job.start_time or job.end_time, job.submission_id)


def _digest(moment: int, submission_id: str) -> str:
    return hashlib.blake2b(f"{moment} {submission_id}".encode(errors="replace"), digest_size=8).hexdigest()


class Told:
    """
    The ends that were told.

    :param floor: all ends up to this time were told, in Unix milliseconds.
    :param ends: later ends that were told: their times by :func:`mark_of`. Some that are a little earlier stay, in case
        Ray writes them again with a later time.
    :param of: the cluster's address and the deployment whose jobs are not told; None in Variables of earlier versions.
    """

    def __init__(self, floor: int = 0, ends: dict[str, int] | None = None, of: tuple[str, str] | None = None) -> None:
        self.of = of
        self.floor = floor
        self.ends = dict(ends or {})
        self._now = math.inf  # of the last end that was added

    def knows(self, job: EndedJob) -> bool:
        """Whether the end of a job was told."""
        if job.end_time <= self.floor or mark_of(job) in self.ends:
            return True
        return _digest(job.end_time, job.submission_id) in self.ends  # Variables of earlier versions

    def is_due(self, job: EndedJob, now: float) -> bool:
        """
        Whether a job's end may be told: ends far in the future, or too many ahead of now, wait for their time.

        :param now: Unix milliseconds.
        """
        if job.end_time <= now:
            return True
        return job.end_time <= now + SLACK and sum(end > now for end in self.ends.values()) < MOST_AHEAD

    def raise_floor(self, end_time: int, now: float) -> None:
        """
        Note that ends were told up to :data:`SLACK` before this one.

        :param end_time: Unix milliseconds.
        :param now: Unix milliseconds.
        """
        self.floor = max(self.floor, min(end_time, int(now)) - SLACK)

    def add(self, mark: str, end_time: int, now: float) -> None:
        """
        Note that an end was told.

        :param mark: as :func:`mark_of`.
        :param end_time: Unix milliseconds.
        :param now: Unix milliseconds. A node whose clock is ahead must not make the watcher skip the ends of others.
        """
        self._now = now
        self.ends[mark] = end_time
        self.raise_floor(end_time, now)
        if len(self.ends) >= 2 * MOST:
            self._forget()

    def _forget(self) -> None:
        """Forget ends that the floor tells, and raise it if there are too many, but not above now."""
        # Those that are far ahead are not told before their time.
        kept = sorted((end, mark) for mark, end in self.ends.items() if self.floor - SLACK < end <= self._now + SLACK)
        if len(kept) > MOST:
            self.floor = max(self.floor, int(min(kept[-MOST - 1][0], self._now)))
        self.ends = {mark: end for end, mark in kept[-MOST:]}

    def to_text(self) -> str:
        """Return JSON."""
        self._forget()
        return json.dumps({"floor": self.floor, "ends": self.ends, "of": self.of}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """
        Read what :meth:`to_text` returned.

        :raises ValueError: it is something else. People can edit it.
        """
        data = json.loads(text)
        if not isinstance(data, dict) or not _is_time(data.get("floor")) or not isinstance(data.get("ends"), dict):
            raise ValueError("it is not an object with a floor and ends")
        if not all(_is_time(end) for end in data["ends"].values()):
            raise ValueError("its ends are not times in milliseconds")
        of = data.get("of")
        if of is not None and not (isinstance(of, list) and len(of) == 2 and all(isinstance(one, str) for one in of)):
            raise ValueError("it does not have an address and a deployment")
        return cls(data["floor"], data["ends"], None if of is None else (of[0], of[1]))


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
