"""Runs flows without a server, in place of a transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.answer_body import AnswerBody, AnswerBodyError
from airflow_provider_rayjobs.client.answers import unusable_body
from airflow_provider_rayjobs.client.exchange import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_rayjobs.client.exchange import Flow
    from tests.support.answers import Answer

ADDRESS = "http://ray:8265"


def answer_to(request: Request, body: bytes, status: int = 200, sizes: Iterable[int] = (), **fields: Any) -> Response:
    """
    Return the response that a transport would pass to a flow.

    :param sizes: bytes of the pieces of the body; the rest is one piece.
    :param fields: other fields of :class:`Response`.
    """
    take = request.receive() if request.receive is not None and status == 200 else None
    try:
        reader, at = AnswerBody("", request.limit, take), 0
        for size in (*sizes, len(body)):
            for _ in reader.feed(body[at : at + size]):
                pass
            at += size
    except AnswerBodyError as e:
        raise unusable_body(ADDRESS, request, e) from None
    return Response(status, reader.content().decode(errors="replace"), ADDRESS, **fields)


def outcome(flow: Flow[Any], *bodies: bytes, sizes: Iterable[int] = ()) -> Any:
    """Run a flow, answer its requests with these bodies in order, and return its result."""
    step = next(flow)
    for body in bodies:
        assert isinstance(step, Request)
        try:
            step = flow.send(answer_to(step, body, sizes=sizes))
        except StopIteration as end:
            return end.value
    raise AssertionError(f"the flow makes another request: {step}")


def response(answer: Answer, **fields: Any) -> Response:
    """Return an answer of the scripted server as a transport hands it on."""
    location = dict(answer.headers).get("Location", "")
    return Response(answer.status, answer.body.decode(), "http://ray:8265", answer.content_type, location, **fields)
