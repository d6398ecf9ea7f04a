"""Answers as a Ray head, or something in front of it, gives them; most texts were copied from a 2.60 head."""

from __future__ import annotations

import dataclasses
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class Answer:
    """One HTTP answer, or part of one.

    :param body: sent as it is.
    :param headers: besides the content type.
    :param delay: seconds before the first byte.
    :param cut_after: close after so many bytes of the body, its whole length having been declared.
    :param drop: reset the connection without a byte.
    :param applies: do first what the route does by default, then give this answer for it.
    :param default: do what the route does by default and give its own answer; only ``headers``, ``delay``,
        ``cut_after`` and ``drop`` of this object count.
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
        """Return this answer with some fields changed, as in ``bad_gateway().but(applies=True)``."""
        return dataclasses.replace(self, **changes)


def as_json(data: object, status: int = 200) -> Answer:
    """JSON as the head sends it."""
    return Answer(status, json.dumps(data).encode())


def text(status: int, message: str) -> Answer:
    """Plain text, as all of the head's errors are."""
    return Answer(status, message.encode(), "text/plain")


def default(delay: float = 0.0) -> Answer:
    """What the route answers by default, late if so wished."""
    return Answer(default=True, delay=delay)


def lost() -> Answer:
    """The route does what it does by default, and its answer is lost: reset without a byte."""
    return Answer(default=True, drop=True)


def drop() -> Answer:
    """Reset without a byte, and nothing was done."""
    return Answer(drop=True)


def html(status: int = 200, title: str = "Sign in") -> Answer:
    """A web page, as from a login portal or a proxy, whatever the status."""
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return Answer(status, page.encode(), "text/html")


def bad_gateway(status: int = 502) -> Answer:
    """A proxy's page for 502, 503 or 504."""
    titles = {502: "502 Bad Gateway", 503: "503 Service Temporarily Unavailable", 504: "504 Gateway Time-out"}
    return html(status, titles[status])


def truncated_json() -> Answer:
    """A whole answer by HTTP's measure whose JSON stops in the middle."""
    return Answer(200, b'{"type": "SUBMISSION", "job_id": null, "submission_id": "raysub')


def not_found(submission_id: str) -> Answer:
    """No such job."""
    return text(404, f"Job {submission_id} does not exist")


def unauthorized() -> Answer:
    """Token mode, no token given."""
    return text(401, "Unauthorized: Missing authentication token")


def forbidden() -> Answer:
    """Token mode, wrong token."""
    return text(403, "Forbidden: Invalid authentication token")


def too_large(limit: int = 104857600, size: int = 104857601) -> Answer:
    """Above the head's limit for a body."""
    return text(413, f"Maximum request body size {limit} exceeded, actual body size {size}")


def too_many(retry_after: str = "1") -> Answer:
    """A proxy's rate limit.

    :param retry_after: seconds, or an HTTP date.
    """
    return text(429, "Too Many Requests").but(headers=(("Retry-After", retry_after),))


def no_agent() -> Answer:
    """The head is up, but nothing on it can run a job yet."""
    return text(500, "No available agent to submit job, please try again later.")


def already_exists(submission_id: str) -> Answer:
    """The id was used before: the agent's 400, wrapped into a 500 by the head."""
    return _rewrapped(
        "submit_job",
        400,
        "raise ValueError(",
        f"ValueError: Job with submission_id {submission_id} already exists. Please use a different submission_id.",
    )


def not_deletable(submission_id: str, status: str) -> Answer:
    """A delete of a job that has not ended."""
    return _rewrapped(
        "delete_job",
        500,
        "raise RuntimeError(",
        f"RuntimeError: Attempted to delete job '{submission_id}', but it is in a non-terminal state {status}.",
    )


def bad_request(error: str) -> Answer:
    """A request of the wrong shape.

    :param error: the last line, as ``TypeError: …``.
    """
    return text(400, _frame("utils.py", "parse_and_validate_request", "return request_type(**json_data)", error))


def internal_error(error: str = "RuntimeError: Failed to look up actor") -> Answer:
    """Any other failure inside the head."""
    return text(500, _frame("job_head.py", "get_job_info", "job = await find_job_by_ids(", error))


def _rewrapped(route: str, inner_status: int, code: str, error: str) -> Answer:
    inner = _frame("job_manager.py", route, code, error)
    outer = f"RuntimeError: Request failed with status code {inner_status}: {inner}."
    call = f"resp = await job_agent_client.{route}_internal("
    return text(500, _frame("job_head.py", route, call, outer))


def _frame(file: str, function: str, code: str, error: str) -> str:
    path = f"/home/ray/site-packages/ray/dashboard/modules/job/{file}"
    return f'Traceback (most recent call last):\n  File "{path}", line 100, in {function}\n    {code}\n{error}\n'
