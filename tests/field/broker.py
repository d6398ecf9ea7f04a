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
        answers = self._celery.control.inspect([f"celery@{worker}"], timeout=2).active_queues() or {}
        return {queue["name"] for queues in answers.values() for queue in queues}

    def consume(self, queue: str, workers: Sequence[str]) -> None:
        """Let workers consume a queue."""
        self._celery.control.add_consumer(queue, destination=[f"celery@{name}" for name in workers], reply=True)

    def cease(self, queue: str, workers: Sequence[str]) -> None:
        """Let workers consume a queue no more."""
        self._celery.control.cancel_consumer(queue, destination=[f"celery@{name}" for name in workers], reply=True)

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
