"""What is asked of the workers and the queues by way of the broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from celery import Celery
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The queue that all workers consume, by Airflow's default.
DEFAULT = "default"
#: The queue that nobody consumes until a session says so: its tasks stay queued.
LATER = "later"


class Broker:
    """The workers' remote control, and the messages.

    :param url: of the Redis.
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
        """Let workers consume a queue."""
        self._tell("add_consumer", queue, workers)

    def cease(self, queue: str, workers: Sequence[str]) -> None:
        """Let workers consume a queue no more."""
        self._tell("cancel_consumer", queue, workers)

    def _tell(self, command: str, queue: str, workers: Sequence[str]) -> None:
        # By a connection of its own: one that is kept does not outlive a restart of the broker.
        with self._celery.connection_for_write() as connection:
            names = [f"celery@{name}" for name in workers]
            self._celery.control.broadcast(
                command, {"queue": queue}, names, reply=True, timeout=2, limit=len(names), connection=connection
            )

    def deliver_again(self) -> int:
        """Put each message whose task runs into its queue once more, as the broker does after its visibility timeout.

        :return: how many there were.
        """
        messages = self._redis.hvals("unacked")
        for text in messages:
            message, _, queue = json.loads(text)
            self._redis.lpush(queue, json.dumps(message))
        return len(messages)

    def close(self) -> None:
        """Let go of the connections."""
        self._celery.close()
        self._redis.close()
