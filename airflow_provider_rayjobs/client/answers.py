"""
Interprets the answers of the Jobs API; no other module does.

The texts are those of ``dashboard/modules/job/job_head.py`` of Ray 2.60, and of proxies in front of it.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.exchange import Response
from airflow_provider_rayjobs.cluster.authentication import Credentials
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
from airflow_provider_rayjobs.text.safe_text import for_terminal

if TYPE_CHECKING:
    from airflow_provider_rayjobs.client.exchange import Request
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection

#: Statuses of a proxy or an overloaded server: the request may be repeated.
TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
NO_AGENT = "No available agent to submit job"

CHECK_ADDRESS = "check that the connection's host, port and path prefix are those of the Ray dashboard"

#: Raised by the web servers of Ray's head and agents for a body that is too large.
TOO_LARGE = "HTTPRequestEntityTooLarge"

#: Objects, lists, items and strings that one JSON document may have. Decoding 60,000 takes about 30 ms. The environment
#: variables of a process have less than a third of that.
MOST_JSON_PARTS = 60_000

#: The start of an object, a list or the next item; or a string, terminated or not. It never backtracks.
_JSON_PART = re.compile(r'[\[{,]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)

#: Statuses for missing or wrong credentials. Ray answers 401 without a token and 403 for a wrong one.
REFUSED_STATUSES = frozenset({401, 403})

#: Occurs in both of these answers of Ray (``_private/authentication/http_token_authentication.py``).
_RAY_ASKS = "authentication token"

#: Where to find Ray's token.
_WHERE_IT_IS = (
    "in ~/.ray/auth_token on the head's machine (`ray get-auth-token` prints it); with KubeRay, in the Secret "
    "with the RayCluster's name, under the key auth_token"
)
_HINT = (
    "Put it into the connection's password (with a login: into the extra 'token'), or set the extra 'token_file' to "
    f"the path of a file with it. The token is {_WHERE_IT_IS}. Ray requires one by default from 2.61 on, and from 2.59 "
    "on if that file existed when the head started"
)

#: Occurs in the answer of a Kubernetes API server that does not let a user use its proxy of services.
_PROXY_RIGHT = re.compile(r'cannot (\w+) resource \\?"services/proxy')

#: Number of characters at the end of an answer's text that are searched for an error message.
ERROR_TEXT_LIMIT = 20_000


def response_of(cluster: ClusterConnection, request: Request, status: int, body: bytes, headers: Any) -> Response:
    """Build the response to a request."""
    return Response(
        status,
        body.decode("utf-8", errors="replace"),
        cluster.address,
        headers.get("Content-Type", ""),
        headers.get("Location", ""),
        secrets=(*cluster.secrets, *request.secrets),
        conn_id=cluster.conn_id,
        credentials=cluster.credentials,
    )


def unusable_body(address: str, request: Request, problem: object) -> RayProtocolError:
    """Return the error for an answer whose body can't be read."""
    return RayProtocolError(
        f"{address}: the answer to {request.method} {request.path} can't be read: {problem}; {CHECK_ADDRESS}",
        address=address,
    )


def is_transient(response: Response) -> bool:
    """Whether the answer only asks to try again later, and says nothing about the request."""
    return response.status in TRANSIENT_STATUSES or (response.status == 500 and NO_AGENT in response.text)


def error_of(response: Response) -> RayJobsError:
    """Return the error that an unsuccessful answer stands for; no other function decides this."""
    status, address = response.status, response.address
    said = cause_line(response.public(response.text[-ERROR_TEXT_LIMIT:]))
    facts: Any = {"status": status, "address": address, "reason": said}
    if is_transient(response):
        what = said if NO_AGENT in response.text else "the server, or a proxy in front of it, is not ready"
        return RayClusterUnreachableError(f"{address}: HTTP {status}: {what}; try again later", address=address)
    if status in REFUSED_STATUSES:
        return RayAuthError(f"{address}: HTTP {status}: {_why_not_let_in(response)} ({said})", **facts)
    if 300 <= status < 400:
        return no_jobs_api(
            response,
            f"a redirect to {for_terminal(response.public(response.location)) or 'nowhere'}, perhaps to a login page",
        )
    if status == 407:
        return RayClusterUnreachableError(
            f"{address}: HTTP 407: the HTTP proxy of this machine requires a login, or refused the one in HTTP_PROXY "
            "or HTTPS_PROXY",
            maybe_sent=False,
            address=address,
        )
    if status == 413 or (status == 500 and TOO_LARGE in response.text):
        return RayRequestRefusedError(
            f"{address}: HTTP {status}: the request is too large for the cluster, or a proxy in front of it ({said})",
            **facts,
        )
    if status == 404 and "does not exist" in response.text:
        return RayJobNotFoundError(f"{address}: {said}", **facts)
    if status == 404:
        return no_jobs_api(response, "HTTP 404 (no such route)")
    if "already exists" in response.text:
        return RayJobExistsError(f"{address}: {said}", **facts)
    # The head turns a 400 of its agent into a 500.
    if status == 400 or (status == 500 and "Request failed with status code 400" in response.text):
        return RayRequestRefusedError(f"{address}: Ray refused the request: {said}", **facts)
    return RayAPIError(f"{address}: HTTP {status}: Ray reports an error: {said}", **facts)


def _why_not_let_in(response: Response) -> str:
    """Describe which credentials are missing or were refused, and what to do."""
    conn_id, sent, by_ray = response.conn_id, response.credentials, _RAY_ASKS in response.text
    if sent is Credentials.TOKEN and by_ray and response.status == 401:
        return (
            f"Ray received no token, although connection {conn_id!r} has one; configure the proxy in front of the "
            "cluster to forward the header Authorization or X-Ray-Authorization"
        )
    if sent is Credentials.TOKEN and by_ray:
        return f"the cluster refused the token of connection {conn_id!r}; the right one is {_WHERE_IT_IS}"
    if by_ray:
        return f"this Ray cluster requires a token; connection {conn_id!r} has none. {_HINT}"
    if sent is Credentials.NONE and response.status == 401:
        return f"the cluster, or a proxy in front of it, requires credentials; connection {conn_id!r} has none. {_HINT}"
    if refused := _PROXY_RIGHT.search(response.text):
        return (
            "the Kubernetes API server does not let this user use its proxy; give the connection's user a Role with "
            f"the verb {refused[1]!r} on 'services/proxy' there"
        )
    return f"the credentials were refused; check the token, login, headers and cookies of connection {conn_id!r}"


class TooManyPartsError(ValueError):
    """A JSON text has more parts than the provider decodes."""


def read_json(response: Response, most_parts: int = MOST_JSON_PARTS) -> Any:
    """
    Return the decoded JSON of an answer.

    :param most_parts: how many parts it may have, as :data:`MOST_JSON_PARTS`.
    :raises RayJobsError: the answer is an error, is not JSON, or exceeds the limits for JSON.
    """
    if response.status != 200:
        raise error_of(response)
    try:
        return decode_json(response.text, most_parts)
    except TooManyPartsError as e:
        raise RayProtocolError(
            f"{response.address}: the answer is larger than what the provider reads: JSON with {e}",
            status=response.status,
            address=response.address,
        ) from None
    except ValueError as e:
        problem = e
    if "html" in response.content_type or response.text.lstrip()[:1] == "<":
        raise no_jobs_api(response, "a web page")
    raise no_jobs_api(response, f"damaged or truncated JSON ({problem})")


def decode_json(text: str, most_parts: int = MOST_JSON_PARTS) -> Any:
    """
    Decode a cluster's JSON in bounded time and memory.

    :param most_parts: how many parts it may have, as :data:`MOST_JSON_PARTS`.
    :raises TooManyPartsError: it has more.
    :raises ValueError: it is not JSON, or is nested too deeply.
    """
    if has_too_many_parts(text, most_parts):
        raise TooManyPartsError(f"more than {most_parts:,} parts")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def has_too_many_parts(text: str, most: int = MOST_JSON_PARTS) -> bool:
    """Whether a JSON text takes too long to decode: each part, however short, costs up to 0.5 µs and 60 bytes."""
    if len(text) <= most:
        return False
    return next(islice(_JSON_PART.finditer(text), most, None), None) is not None


def read_object(response: Response, most_parts: int = MOST_JSON_PARTS) -> dict[str, Any]:
    """Return the JSON object of an answer; takes and raises what :func:`read_json` does."""
    data = read_json(response, most_parts)
    if not isinstance(data, dict):
        raise no_jobs_api(response, "JSON that is not an object")
    return data


def no_jobs_api(response: Response, got: str) -> RayProtocolError:
    """Return the error for an answer that does not come from the Jobs API."""
    return RayProtocolError(
        f"{response.address}: expected an answer of the Ray Jobs API, got {got}; {CHECK_ADDRESS}",
        status=response.status,
        address=response.address,
    )


def cause_line(text: str) -> str:
    """Return the line of an error text that says what is wrong: the last line of the last Python traceback in it."""
    lines = [line.rstrip() for line in text.splitlines() if any(map(str.isalnum, line))]
    if not lines or lines[0].lstrip().startswith("<"):
        return "no explanation"
    # The head puts the agent's traceback into its own message, so the cause isn't always the last line.
    causes = [line for line in lines if re.match(r"([a-z_]\w*\.)*[A-Z]\w+: \S", line)]
    return for_terminal((causes[-1] if causes else lines[-1]).strip()[:500])
