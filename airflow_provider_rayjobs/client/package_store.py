"""
Flows for the package store on the head; no I/O.

Routes and answers follow ``get_package`` and ``upload_package`` of ``dashboard/modules/job/job_head.py`` of Ray 2.60.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_provider_rayjobs.client.answers import error_of, no_jobs_api
from airflow_provider_rayjobs.client.exchange import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.client.exchange import Body, Flow


def has_package(name: str) -> Flow[bool]:
    """
    Check whether the cluster has a package (``GET /api/packages/gcs/{name}``).

    The request makes Ray keep the package for 10 minutes, even if no job uses it yet, and even if it is uploaded only
    within these 10 minutes.

    :param name: the package's file name.
    """
    response = yield Request("GET", _path(name))
    if response.status == 404 and "does not exist" in response.text:
        return False
    if response.status != 200:
        raise error_of(response)
    if response.text.lstrip()[:1] == "<":
        raise no_jobs_api(response, "a web page")
    return True


def put_package(name: str, upload: Callable[[], Body]) -> Flow[bool]:
    """
    Upload a package (``PUT /api/packages/gcs/{name}``); repeating is harmless, since the content determines the name.

    :param name: the package's file name.
    :param upload: opens the content; called for each attempt.
    :return: False if the package is too large for the server, or for a proxy in front of it.
    """
    response = yield Request("PUT", _path(name), upload=upload)
    # An older Ray turns the 413 of its own web server into a 500.
    if response.status == 413 or (response.status == 500 and "HTTPRequestEntityTooLarge" in response.text):
        return False
    if response.status != 200:
        raise error_of(response)
    return True


def _path(name: str) -> str:
    return f"/api/packages/gcs/{quote(name, safe='')}"
