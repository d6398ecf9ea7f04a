"""
The verbs of Ray Serve's REST API, without I/O, as :mod:`~airflow_provider_rayjobs.client.verbs` has those of jobs.

The route is that of ``dashboard/modules/serve/serve_head.py`` of Ray 2.60; Ray 2.8 has it, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.answers import cause_line, error_of, no_jobs_api, read_object
from airflow_provider_rayjobs.client.exchange import Flow, Request
from airflow_provider_rayjobs.client.serve_config import variables_of
from airflow_provider_rayjobs.exceptions import RayProtocolError, RayRequestRefusedError
from airflow_provider_rayjobs.serve import ServeDetails
from airflow_provider_rayjobs.text.safe_text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_rayjobs.client.exchange import Response
    from airflow_provider_rayjobs.exceptions import RayJobsError

ROUTE = "/api/serve/applications/"

#: Maximum size of Serve's details, in bytes: Ray describes each replica of each deployment in about 500.
DETAILS_LIMIT = 16 * 1024 * 1024

#: Maximum number of its parts (see ``answers.MOST_JSON_PARTS``): a replica has 34 of them. Decoding takes up to 0.6 s.
DETAILS_PARTS = 1_200_000

#: A longer text of details is not to be read on an event loop, in characters. Decoding it takes about 10 ms.
LARGE_DETAILS = 256 * 1024

#: Seconds until the answer to a deployment: the first one starts Serve's controller and its proxies.
START_WITHIN = 120.0

#: What follows a message of pydantic: the value, which may hold secrets, cut off in the middle.
_VALUE = re.compile(r"\s*\[type=.*")


def get_serve_details() -> Flow[ServeDetails]:
    """
    Read which applications there are, with their configs (``GET /api/serve/applications/``).

    :raises RayRequestRefusedError: Ray Serve is not installed on the cluster.
    :raises RayProtocolError: the route is not served, or the answer is not that of Ray Serve.
    """
    return read_serve_details((yield from fetch_serve_details()))


def fetch_serve_details() -> Flow[Response]:
    """Send the request of :func:`get_serve_details`, and return the answer: reading a large one takes long."""
    return (yield Request("GET", ROUTE, limit=DETAILS_LIMIT))


def read_serve_details(response: Response) -> ServeDetails:
    """Read the answer of :func:`fetch_serve_details`; raises what :func:`get_serve_details` does."""
    if response.status != 200:
        raise _error_of(response)
    try:
        return ServeDetails.from_json(read_object(response, DETAILS_PARTS))
    except ValueError as e:
        raise no_jobs_api(response, str(e)) from None


def deploy_applications(config: Mapping[str, Any]) -> Flow[None]:
    """
    Replace Serve's applications by those of a config (``PUT /api/serve/applications/``).

    Serve starts if it has not been started. The request is never repeated: meanwhile somebody else may have deployed
    an application, which this config would delete or change back.

    :param config: a ``ServeDeploySchema``.
    :raises RayClusterUnreachableError: contact was lost; Serve may have got the config. Read again what is there.
    :raises RayRequestRefusedError: Serve refused the config, or is not installed on the cluster.
    :raises RayProtocolError: the route is not served.
    """
    response = yield Request(
        "PUT", ROUTE, json=dict(config), repeatable=False, within=START_WITHIN, secrets=variables_of(config)
    )
    if response.status != 200:
        raise _error_of(response)
    if response.text.lstrip()[:1] == "<":
        raise no_jobs_api(response, "a web page")


def _error_of(response: Response) -> RayJobsError:
    """Return the error that an unsuccessful answer of Serve's route stands for."""
    address, status = response.address, response.status
    if status == 501:
        return RayRequestRefusedError(
            f"{address}: Ray Serve is not installed on the cluster; install ray[serve] there",
            status=status,
            address=address,
            reason=cause_line(response.public(response.text)),
        )
    if status == 404:
        return RayProtocolError(
            f"{address}: the cluster, or a proxy in front of it, does not serve {ROUTE}; a proxy must pass this route",
            status=status,
            address=address,
        )
    if status == 400 and "Traceback" not in response.text:
        said = _refusal(response.public(response.text[:20_000]))
        return RayRequestRefusedError(
            f"{address}: Ray Serve refused the config: {said}", status=status, address=address, reason=said
        )
    return error_of(response)


def _refusal(text: str) -> str:
    """Return what pydantic says about a config, without the values that it quotes."""
    lines = (_VALUE.sub("", line).strip() for line in text.splitlines())
    said = "; ".join(line for line in lines if line and not line.startswith("For further information"))
    return one_line(said, 1000) or "no explanation"
