"""
What an answer of the Jobs API means: the one place that decides it.

The texts are those of ``dashboard/modules/job/job_head.py`` of Ray 2.60, and what proxies before it say.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_rayjobs.exceptions import (
    RayAPIError,
    RayAuthError,
    RayClusterUnreachableError,
    RayJobExistsError,
    RayJobNotFoundError,
    RayJobsError,
    RayProtocolError,
    RayRequestRefusedError,
)

#: Statuses of a proxy or of an overloaded server: the request may be repeated.
TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
NO_AGENT = "No available agent to submit job"

#: The most of an answer's text that is looked at for an error message, in characters.
ERROR_TEXT_LIMIT = 20_000


@dataclass(frozen=True)
class Response:
    """
    An answer.

    :param address: the cluster that gave it, for messages.
    :param secrets: texts that must not show in a message, should the answer repeat them.
    """

    status: int
    text: str = field(repr=False)
    address: str
    content_type: str = ""
    location: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def public(self, text: str) -> str:
        """Return a text without the secrets."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            if len(secret) > 2:  # shorter ones would blank out half of every message
                text = text.replace(secret, "***")
        return text


def is_transient(response: Response) -> bool:
    """Whether the answer asks to come again later, and says nothing of the request itself."""
    return response.status in TRANSIENT_STATUSES or (response.status == 500 and NO_AGENT in response.text)


def error_of(response: Response) -> RayJobsError:
    """Return what an answer that is no success means; the one place that decides it."""
    status, address = response.status, response.address
    said = _last_line(response.public(response.text))
    if is_transient(response):
        what = said if NO_AGENT in response.text else "the server or a proxy before it is not ready"
        return RayClusterUnreachableError(f"{address}: HTTP {status}: {what}; it may be tried again")
    if status in (401, 403):
        return RayAuthError(
            f"{address}: HTTP {status}: the credentials were refused; check the connection's token, headers "
            f"and cookies ({said})",
            status=status,
        )
    if 300 <= status < 400:
        return no_jobs_api(
            response, f"a redirect to {response.public(response.location) or 'nowhere'}, as of a login page"
        )
    if status == 404 and "does not exist" in response.text:
        return RayJobNotFoundError(f"{address}: {said}", status=status)
    if status == 404:
        return no_jobs_api(response, "no such route (HTTP 404)")
    if "already exists" in response.text:
        return RayJobExistsError(f"{address}: {said}", status=status)
    # What the head's agent refuses with 400 the head wraps into a 500.
    if status == 400 or (status == 500 and "Request failed with status code 400" in response.text):
        return RayRequestRefusedError(f"{address}: Ray refused the request: {said}", status=status)
    return RayAPIError(f"{address}: HTTP {status}: Ray reports an error: {said}", status=status)


def read_json(response: Response) -> Any:
    """
    Return the decoded JSON of an answer.

    :raises RayJobsError: the answer is no success, or no JSON.
    """
    if response.status != 200:
        raise error_of(response)
    try:
        return json.loads(response.text)
    except ValueError:
        pass
    if "html" in response.content_type or response.text.lstrip()[:1] == "<":
        raise no_jobs_api(response, "a web page")
    raise no_jobs_api(response, "damaged or truncated JSON")


def read_object(response: Response) -> dict[str, Any]:
    """Return the JSON object of an answer; raises as :func:`read_json`."""
    data = read_json(response)
    if not isinstance(data, dict):
        raise no_jobs_api(response, "JSON that is no object")
    return data


def no_jobs_api(response: Response, got: str) -> RayProtocolError:
    """Return the error for an answer that is none of the Jobs API."""
    return RayProtocolError(
        f"{response.address}: this is no answer of the Ray Jobs API but {got}; check that host, port and path "
        "prefix are those of the Ray dashboard",
        status=response.status,
    )


def _last_line(text: str) -> str:
    """Return the line of an error text that says what is wrong: of a Python traceback that is the last one."""
    lines = [line.strip() for line in text[-ERROR_TEXT_LIMIT:].splitlines() if line.strip()]
    if not lines or lines[0].startswith("<"):
        return "no explanation"
    # The head wraps the agent's traceback into its own message; the cause comes before the wrapper's end.
    causes = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b: ", line)]
    return (causes[-1] if causes else lines[-1])[:500]
