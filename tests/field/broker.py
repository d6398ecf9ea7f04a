"""Controls Celery workers and queues through the broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from celery import Celery
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Airflow's default queue, which all workers consume.
DEFAULT = "default"
#: A queue that no worker consumes until a session adds one, so its tasks stay queued.
LATER = "later"


class Broker:
    """The remote control of the workers, and the messages.

    :param url: URL of the Redis.
    """

    def __init__(self, url: str) -> None:
        self._celery = Celery(broker=url)
        self._redis = Redis.from_url(url)

    def queues(self, worker: str) -> set[str]:
        """Return the names of the queues that a worker consumes; none if it does not answer."""
        with self._celery.connection_for_write() as connection:
            asked = self._celery.control.inspect([f"celery@{worker}"], timeout=2, connection=connection)
            answers = asked.active_queues() or {}
        return {queue["name"] for queues in answers.values() for queue in queues}

    def consume(self, queue: str, workers: Sequence[str]) -> None:
        """Make workers consume a queue."""
        self._control("add_consumer", queue, workers)

    def cease(self, queue: str, workers: Sequence[str]) -> None:
        """Stop workers from consuming a queue."""
        self._control("cancel_consumer", queue, workers)

    def _control(self, command: str, queue: str, workers: Sequence[str]) -> None:
        # With a new connection, because an old one breaks when the broker restarts.
        with self._celery.connection_for_write() as connection:
            names = [f"celery@{name}" for name in workers]
            self._celery.control.broadcast(
                command, {"queue": queue}, names, reply=True, timeout=2, limit=len(names), connection=connection
            )

    def deliver_again(self) -> int:
        """Deliver the message of each running task again, as the broker does after its visibility timeout.

        :return: the number of messages.
        """
        messages = self._redis.hvals("unacked")
        for text in messages:
            message, _, queue = json.loads(text)
            self._redis.lpush(queue, json.dumps(message))
        return len(messages)

    def close(self) -> None:
        """Close the connections."""
        self._celery.close()
        self._redis.close()
