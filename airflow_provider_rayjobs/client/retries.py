"""Decides for both transports when a request is retried, and how long they wait between attempts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.answers import REFUSED_STATUSES, error_of, is_transient
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayTLSError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_rayjobs.client.exchange import Response
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection

#: Attempts of a repeatable request, and the waits between them in seconds: about 4 s in total.
ATTEMPTS = 5
FIRST_WAIT = 0.25
LONGEST_WAIT = 2.0

#: Maximum seconds between two attempts while a task waits for an unreachable cluster.
LONGEST_ABSENCE_WAIT = 5.0

#: Seconds before a request is repeated after the cluster refused a rotating token.
TOKEN_PAUSE = 1.0


def retry_policy() -> dict[str, Any]:
    """Return the arguments of tenacity's ``Retrying`` and ``AsyncRetrying``: retry lost contact, with jitter."""
    from tenacity import retry_if_exception, stop_after_attempt, wait_exponential, wait_random

    return {
        "stop": stop_after_attempt(ATTEMPTS),
        "wait": wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT) + wait_random(0, FIRST_WAIT),
        "retry": retry_if_exception(
            lambda e: isinstance(e, RayClusterUnreachableError) and not isinstance(e, RayTLSError)
        ),
        "reraise": True,
    }


def absence_waits() -> Iterator[float]:
    """Yield the seconds between attempts to reach an absent cluster: first short, then longer, with jitter."""
    wait = FIRST_WAIT
    while True:
        yield wait + random.uniform(0, FIRST_WAIT)  # noqa: S311 - jitter
        wait = min(2 * wait, LONGEST_ABSENCE_WAIT - FIRST_WAIT)


def drop_outdated_token(cluster: ClusterConnection, status: int) -> bool:
    """Drop a refused rotating token; return whether to send the request again (safe: Ray refuses before it acts)."""
    if status not in REFUSED_STATUSES:
        return False
    for token in cluster.rotating:
        token.drop()
    return bool(cluster.rotating)


def settled(response: Response) -> Response:
    """Return a response, or raise the error that the retry policy handles if it asks to try again later."""
    if is_transient(response):
        raise error_of(response)
    return response
