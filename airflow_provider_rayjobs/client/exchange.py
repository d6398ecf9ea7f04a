"""Requests and responses: what a verb asks for, and what a transport gives back."""

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
    """A body that is read while it is sent."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...

    def read(self, length: int = -1, /) -> bytes:
        """Read on; no bytes are the end."""


@dataclass(frozen=True)
class Request:
    """
    A request to send.

    :param method: HTTP method.
    :param path: path below the cluster's address, quoted.
    :param json: body, encoded as JSON when given.
    :param repeatable: whether sending it twice does no harm; only then is it retried.
    :param secrets: texts that must not show in an error message.
    :param upload: opens the body, from its beginning, for each attempt to send it; it is streamed. Reading it blocks,
        so only ``RequestsTransport`` sends it.
    :param receive: begins, for each attempt, with an answer that is too large to hold: what it returns takes the
        pieces of the body of a 200, and the answer's own text stays empty.
    :param limit: bytes that the answer may have.
    :param within: seconds that the answer may take, from the open connection to its last byte, where that is more than
        the connection's ``read_timeout``.
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


@dataclass(frozen=True)
class Pause:
    """A wait, in seconds, that a flow asks its driver for."""

    seconds: float


@dataclass(frozen=True)
class Response:
    """
    An answer.

    :param address: the cluster that gave it, for messages.
    :param secrets: texts that must not show in a message, should the answer repeat them.
    :param conn_id: id of the Airflow connection, for messages.
    :param credentials: what the request carried to be let in.
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
        """Return what the server said without secrets."""
        return without_logins(JobSecrets(self.secrets).public(text))


#: What a flow receives for a :class:`Pause`.
NO_RESPONSE = Response(0, "", "")

Flow = Generator[Request | Pause, Response, T]
