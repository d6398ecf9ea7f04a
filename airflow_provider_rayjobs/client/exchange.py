"""Requests and responses: what verbs yield, and what transports return."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from airflow_provider_rayjobs.client.answer_body import ANSWER_LIMIT, TakePiece
from airflow_provider_rayjobs.cluster.authentication import Credentials
from airflow_provider_rayjobs.text.job_secrets import JobSecrets
from airflow_provider_rayjobs.text.safe_text import without_logins

T = TypeVar("T")


class Body(Protocol):
    """A request body that is read while it is sent."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...

    def read(self, length: int = -1, /) -> bytes:
        """Read the next bytes; empty at the end."""


@dataclass(frozen=True)
class Request:
    """
    A request to send.

    :param method: HTTP method.
    :param path: path below the cluster's address, quoted.
    :param json: body, encoded as JSON when given.
    :param repeatable: whether sending it twice does no harm; only then is it retried.
    :param secrets: texts that must not appear in an error message.
    :param upload: opens the body from its beginning; called for each attempt. The body is streamed. Reading it blocks,
        so only ``RequestsTransport`` can send it.
    :param receive: for an answer that is too large to keep in memory. Called for each attempt; what it returns takes
        the pieces of the body if the status is 200. The response's text then stays empty.
    :param limit: maximum size of the answer, in bytes.
    :param within: seconds until the last byte of the answer, if that is more than the connection's ``read_timeout``.
        They start when the connection is open.
    :param refused_types: content types of answers that ``receive`` does not take.
    """

    method: str
    path: str
    json: Any = field(default=None, repr=False)
    repeatable: bool = True
    secrets: tuple[str, ...] = field(default=(), repr=False)
    upload: Callable[[], Body] | None = field(default=None, repr=False)
    receive: Callable[[], TakePiece] | None = field(default=None, repr=False)
    limit: int = ANSWER_LIMIT
    within: float = 0.0
    refused_types: tuple[str, ...] = ()

    def receiver(self, status: int, content_type: str | None) -> TakePiece | None:
        """Return what takes the body of an answer, piece by piece; None if the answer is kept in memory."""
        kind = (content_type or "").partition(";")[0].strip().lower()
        if self.receive is None or status != 200 or kind in self.refused_types:
            return None
        return self.receive()


@dataclass(frozen=True)
class Pause:
    """A wait, in seconds, that a flow requests from its transport."""

    seconds: float


@dataclass(frozen=True)
class Response:
    """
    An answer.

    :param address: address of the cluster, for messages.
    :param secrets: texts to mask in messages, in case the answer repeats them.
    :param conn_id: id of the Airflow connection, for messages.
    :param credentials: the kind of credentials that the request carried.
    """

    status: int
    text: str = field(repr=False)
    address: str
    content_type: str = ""
    location: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    conn_id: str = ""
    credentials: Credentials = Credentials.NONE

    def public(self, text: str) -> str:
        """Return a text of the server without secrets."""
        return without_logins(JobSecrets(self.secrets).public(text))


#: The response to a :class:`Pause`.
NO_RESPONSE = Response(0, "", "")

Flow = Generator[Request | Pause, Response, T]
