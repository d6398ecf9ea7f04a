"""
What an answer of the Jobs API means: the one place that decides it.

The texts are those of ``dashboard/modules/job/job_head.py`` of Ray 2.60, and what proxies before it say.
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

#: Statuses of a proxy or of an overloaded server: the request may be repeated.
TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
NO_AGENT = "No available agent to submit job"

CHECK_ADDRESS = "check that host, port and path prefix are those of the Ray dashboard"

#: What the web servers of Ray, and of its agent behind the head, raise for a body that is too large.
TOO_LARGE = "HTTPRequestEntityTooLarge"

#: Objects, lists, items and strings that one JSON document may have; 60,000 take some 30 ms. The variables of a
#: process have less than a third of that.
MOST_JSON_PARTS = 60_000

#: What begins an object, a list or the next item; or a string, or the beginning of one that does not end, which is read
#: once, whatever it holds.
_JSON_PART = re.compile(r'[\[{,]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)

#: Statuses of whoever does not let a request in; Ray's own are 401 without a token, and 403 for a wrong one.
REFUSED_STATUSES = frozenset({401, 403})

#: In both of Ray's own answers (``_private/authentication/http_token_authentication.py``).
_RAY_ASKS = "authentication token"

#: Ray's token.
_WHERE_IT_IS = (
    "in ~/.ray/auth_token on the head's machine, where `ray get-auth-token` prints it; with KubeRay, in the Secret "
    "that is named like the RayCluster, under the key auth_token"
)
_HINT = (
    "Put it into the connection's password (with a login: into the extra 'token'), or name a file that holds it in the "
    f"extra 'token_file'. The token is {_WHERE_IT_IS}. Ray wants one by default from 2.61 on, and from 2.59 on where "
    "that file was there when the head was started"
)

#: The most of an answer's text that is looked at for an error message, in characters.
ERROR_TEXT_LIMIT = 20_000


def response_of(cluster: ClusterConnection, request: Request, status: int, body: bytes, headers: Any) -> Response:
    """Return the answer to a request."""
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
        f"{address}: the answer to {request.method} {request.path} can't be used: {problem}; {CHECK_ADDRESS}"
    )


def is_transient(response: Response) -> bool:
    """Whether the answer asks to come again later, and says nothing of the request itself."""
    return response.status in TRANSIENT_STATUSES or (response.status == 500 and NO_AGENT in response.text)


def error_of(response: Response) -> RayJobsError:
    """Return what an answer that is no success means; the one place that decides it."""
    status, address = response.status, response.address
    said = _cause(response.public(response.text[-ERROR_TEXT_LIMIT:]))
    if is_transient(response):
        what = said if NO_AGENT in response.text else "the server or a proxy before it is not ready"
        return RayClusterUnreachableError(f"{address}: HTTP {status}: {what}; it may be tried again")
    if status in REFUSED_STATUSES:
        return RayAuthError(f"{address}: HTTP {status}: {_why_not_let_in(response)} ({said})", status=status)
    if 300 <= status < 400:
        return no_jobs_api(
            response,
            f"a redirect to {for_terminal(response.public(response.location)) or 'nowhere'}, as of a login page",
        )
    if status == 407:
        return RayClusterUnreachableError(
            f"{address}: HTTP 407: the HTTP proxy of this machine wants a login, or refused the one in HTTP_PROXY or "
            "HTTPS_PROXY",
            maybe_sent=False,
        )
    if status == 413 or (status == 500 and TOO_LARGE in response.text):
        return RayRequestRefusedError(
            f"{address}: HTTP {status}: the request is too large for the cluster, or for a proxy before it ({said})",
            status=status,
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


def _why_not_let_in(response: Response) -> str:
    """Say which credentials the cluster, or a proxy before it, wants or refused, and what to do."""
    conn_id, sent, by_ray = response.conn_id, response.credentials, _RAY_ASKS in response.text
    if sent is Credentials.TOKEN and by_ray and response.status == 401:
        return (
            f"Ray got no token, although connection {conn_id!r} has one; see that the proxy before the cluster hands "
            "on the header Authorization or X-Ray-Authorization"
        )
    if sent is Credentials.TOKEN and by_ray:
        return f"the token of connection {conn_id!r} was refused; the cluster's own is {_WHERE_IT_IS}"
    if by_ray:
        return f"this Ray cluster wants a token, and connection {conn_id!r} has no token. {_HINT}"
    if sent is Credentials.NONE and response.status == 401:
        return f"the cluster, or a proxy before it, wants credentials, and connection {conn_id!r} has no token. {_HINT}"
    return f"the credentials were refused; check the token, login, headers and cookies of connection {conn_id!r}"


def read_json(response: Response) -> Any:
    """
    Return the decoded JSON of an answer.

    :raises RayJobsError: the answer is no success, or is not JSON that can be read within bounds.
    """
    if response.status != 200:
        raise error_of(response)
    try:
        return decode_json(response.text)
    except ValueError as e:
        problem = e
    if "html" in response.content_type or response.text.lstrip()[:1] == "<":
        raise no_jobs_api(response, "a web page")
    raise no_jobs_api(response, f"damaged or truncated JSON ({problem})")


def decode_json(text: str) -> Any:
    """
    Decode JSON of a cluster in bounded time and memory.

    :raises ValueError: it is not JSON, is nested too deeply, or has too many parts.
    """
    if has_too_many_parts(text):
        raise ValueError(f"more than {MOST_JSON_PARTS:,} parts")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def has_too_many_parts(text: str) -> bool:
    """Whether decoding a JSON text takes too long: each part costs up to 0.5 µs and 60 bytes, however short it is."""
    if len(text) <= MOST_JSON_PARTS:
        return False
    return next(islice(_JSON_PART.finditer(text), MOST_JSON_PARTS, None), None) is not None


def read_object(response: Response) -> dict[str, Any]:
    """Return the JSON object of an answer; raises as :func:`read_json`."""
    data = read_json(response)
    if not isinstance(data, dict):
        raise no_jobs_api(response, "JSON that is no object")
    return data


def no_jobs_api(response: Response, got: str) -> RayProtocolError:
    """Return the error for an answer that is none of the Jobs API."""
    return RayProtocolError(
        f"{response.address}: this is no answer of the Ray Jobs API but {got}; {CHECK_ADDRESS}",
        status=response.status,
    )


def _cause(text: str) -> str:
    """Return the line of an error text that says what is wrong: of Python's tracebacks, the one that ends the last."""
    lines = [line.rstrip() for line in text.splitlines() if any(map(str.isalnum, line))]
    if not lines or lines[0].lstrip().startswith("<"):
        return "no explanation"
    # The head wraps the agent's traceback into its own message; the cause comes before the wrapper's end.
    causes = [line for line in lines if re.match(r"([a-z_]\w*\.)*[A-Z]\w+: \S", line)]
    return for_terminal((causes[-1] if causes else lines[-1]).strip()[:500])
