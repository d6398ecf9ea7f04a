"""The head's store of packages: what each of its answers means."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client.package_store import has_package, put_package
from airflow_provider_rayjobs.exceptions import RayAPIError, RayAuthError, RayClusterUnreachableError, RayProtocolError
from tests.support import answers
from tests.support.flows import response

if TYPE_CHECKING:
    from airflow_provider_rayjobs.client.exchange import Flow
    from tests.support.answers import Answer

NAME = "_ray_pkg_1 2/3.zip"
PATH = "/api/packages/gcs/_ray_pkg_1%202%2F3.zip"
MISSING = answers.text(404, f"Package {NAME} does not exist")
#: Of Rays that wrap what their own web server says.
WRAPPED_TOO_LARGE = answers.text(500, "Traceback (most recent call last):\naiohttp.HTTPRequestEntityTooLarge: no\n")


def put() -> Flow[bool]:
    return put_package(NAME, lambda: io.BytesIO(b"content"))  # type: ignore[arg-type, return-value]


def answered(flow: Flow[bool], answer: Answer) -> tuple[Any, bool]:
    """Return what the flow asks and what it makes of the answer."""
    request = next(flow)
    with pytest.raises(StopIteration) as end:
        flow.send(response(answer))
    return request, end.value.value


@pytest.mark.parametrize(("answer", "found"), [(answers.as_json(True), True), (MISSING, False)])
def test_a_package_is_there_or_not(answer: Answer, found: bool) -> None:
    request, value = answered(has_package(NAME), answer)
    assert (request.method, request.path, value) == ("GET", PATH, found)


@pytest.mark.parametrize(
    ("answer", "stored"), [(answers.as_json(True), True), (answers.too_large(), False), (WRAPPED_TOO_LARGE, False)]
)
def test_a_package_is_stored_or_too_large(answer: Answer, stored: bool) -> None:
    request, value = answered(put(), answer)
    assert (request.method, request.path, value) == ("PUT", PATH, stored)
    assert request.upload().read() == b"content"
    assert request.repeatable


@pytest.mark.parametrize("make", [lambda: has_package(NAME), put], ids=["has", "put"])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (answers.html(404), RayProtocolError),
        (answers.unauthorized(), RayAuthError),
        (answers.bad_gateway(), RayClusterUnreachableError),
        (answers.internal_error(), RayAPIError),
    ],
)
def test_any_other_answer_is_its_error(make: Any, answer: Answer, kind: type[Exception]) -> None:
    flow = make()
    next(flow)
    with pytest.raises(kind) as caught:
        flow.send(response(answer))
    assert type(caught.value) is kind


def test_a_web_page_is_no_package() -> None:
    flow = has_package(NAME)
    next(flow)
    with pytest.raises(RayProtocolError, match="expected an answer of the Ray Jobs API, got a web page"):
        flow.send(response(answers.html()))
