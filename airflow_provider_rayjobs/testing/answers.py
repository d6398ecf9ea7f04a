"""Responses of a Ray head or of a proxy in front of it. Most texts are copied from a head of Ray 2.60."""

from __future__ import annotations

import dataclasses
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class Answer:
    """One HTTP response, or a part of one.

    :param body: sent unchanged.
    :param headers: headers other than the content type.
    :param delay: seconds before the first byte.
    :param cut_after: close the connection after this many bytes of the body; Content-Length has its full length.
    :param drop: reset the connection without sending a byte.
    :param applies: first do what the route does by default, then send this response instead of its own.
    :param default: do what the route does by default and send its own response; only ``headers``, ``delay``,
        ``cut_after`` and ``drop`` of this object are used.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    cut_after: int | None = None
    drop: bool = False
    applies: bool = False
    default: bool = False

    def but(self, **changes: Any) -> Answer:
        """Return a copy with other values for some fields, as in ``bad_gateway().but(applies=True)``."""
        return dataclasses.replace(self, **changes)


def as_json(data: object, status: int = 200) -> Answer:
    """Return JSON, as the head sends it."""
    return Answer(status, json.dumps(data).encode())


def text(status: int, message: str) -> Answer:
    """Return plain text, as in all of the head's errors."""
    return Answer(status, message.encode(), "text/plain")


def default(delay: float = 0.0) -> Answer:
    """Return the default response of the route.

    :param delay: seconds before the first byte.
    """
    return Answer(default=True, delay=delay)


def lost() -> Answer:
    """Do what the route does by default, then reset the connection without sending a byte."""
    return Answer(default=True, drop=True)


def drop() -> Answer:
    """Reset the connection without doing anything."""
    return Answer(drop=True)


def html(status: int = 200, title: str = "Sign in") -> Answer:
    """Return a web page, as from a login portal or a proxy."""
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return Answer(status, page.encode(), "text/html")


def bad_gateway(status: int = 502) -> Answer:
    """Return a proxy's page for 502, 503 or 504."""
    titles = {502: "502 Bad Gateway", 503: "503 Service Temporarily Unavailable", 504: "504 Gateway Time-out"}
    return html(status, titles[status])


def truncated_json() -> Answer:
    """Return a complete HTTP response whose JSON stops in the middle."""
    return Answer(200, b'{"type": "SUBMISSION", "job_id": null, "submission_id": "raysub')


def not_found(submission_id: str) -> Answer:
    """Return the response for an unknown job."""
    return text(404, f"Job {submission_id} does not exist")


def unauthorized() -> Answer:
    """Return the response to a request without a token, in token mode."""
    return text(401, "Unauthorized: Missing authentication token")


def forbidden() -> Answer:
    """Return the response to a request with a wrong token, in token mode."""
    return text(403, "Forbidden: Invalid authentication token")


def too_large(limit: int = 104857600, size: int = 104857601) -> Answer:
    """Return the response to a body above the head's limit."""
    return text(413, f"Maximum request body size {limit} exceeded, actual body size {size}")


def too_many(retry_after: str = "1") -> Answer:
    """Return the response of a proxy's rate limit.

    :param retry_after: seconds, or an HTTP date.
    """
    return text(429, "Too Many Requests").but(headers=(("Retry-After", retry_after),))


def no_agent() -> Answer:
    """Return the response of a head on which no agent can run a job yet."""
    return text(500, "No available agent to submit job, please try again later.")


def already_exists(submission_id: str) -> Answer:
    """Return the response to an id that was used before: the agent's 400, wrapped into a 500 by the head."""
    return _rewrapped(
        "submit_job",
        400,
        "raise ValueError(",
        f"ValueError: Job with submission_id {submission_id} already exists. Please use a different submission_id.",
    )


def not_deletable(submission_id: str, status: str) -> Answer:
    """Return the response to the deletion of a job that has not ended."""
    return _rewrapped(
        "delete_job",
        500,
        "raise RuntimeError(",
        f"RuntimeError: Attempted to delete job '{submission_id}', but it is in a non-terminal state {status}.",
    )


def bad_request(error: str) -> Answer:
    """Return the response to a malformed request.

    :param error: the last line, such as ``TypeError: …``.
    """
    return text(400, _frame("utils.py", "parse_and_validate_request", "return request_type(**json_data)", error))


def internal_error(error: str = "RuntimeError: Failed to look up actor") -> Answer:
    """Return the response to any other failure inside the head."""
    return text(500, _frame("job_head.py", "get_job_info", "job = await find_job_by_ids(", error))


def _rewrapped(route: str, inner_status: int, code: str, error: str) -> Answer:
    inner = _frame("job_manager.py", route, code, error)
    outer = f"RuntimeError: Request failed with status code {inner_status}: {inner}."
    call = f"resp = await job_agent_client.{route}_internal("
    return text(500, _frame("job_head.py", route, call, outer))


def _frame(file: str, function: str, code: str, error: str) -> str:
    path = f"/home/ray/site-packages/ray/dashboard/modules/job/{file}"
    return f'Traceback (most recent call last):\n  File "{path}", line 100, in {function}\n    {code}\n{error}\n'
