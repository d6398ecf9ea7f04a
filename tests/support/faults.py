"""The faults that :class:`tests.support.faulty_proxy.FaultyProxy` can show, and when it shows them."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

HTML_502 = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong; make it with the functions below.

    :param kind: the name of the function that made it.
    :param count: bytes to let through before the cut.
    :param seconds: to wait.
    :param status: of the answer that the proxy gives itself.
    :param body: of that answer.
    :param content_type: of that answer.
    :param headers: more headers of that answer.
    :param call: what :func:`call` was given.
    """

    kind: str
    count: int = 0
    seconds: float = 0.0
    status: int = 0
    body: str = ""
    content_type: str = "text/html"
    headers: tuple[tuple[str, str], ...] = ()
    call: Call | None = None


Moment = Literal["received", "forwarded", "answered", "delivered"]


@dataclass(frozen=True)
class Call:
    """A function to call in the course of an exchange, see :func:`call`."""

    function: Callable[[], object]
    at: Moment
    pattern: str
    then: Fault | None


def call(function: Callable[[], object], at: Moment, pattern: str = "", then: Fault | None = None) -> Fault:
    """Call a function at a moment of the exchange, wait for its end, then go on.

    :param function: called in a thread of its own, each time.
    :param at: ``received`` (by the proxy; the upstream has seen nothing), ``forwarded`` (the upstream has it and may
        not have answered), ``answered`` (the upstream has; the client has seen nothing), or ``delivered`` (the client
        has the whole answer).
    :param pattern: regular expression; the function is called only if the answer's body holds it. Only for the two
        moments at which there is an answer.
    :param then: how to go on after ``received``; by default, as if nothing had happened.
    """
    return Fault("call", call=Call(function, at, pattern, then))


def refuse() -> Fault:
    """Reset the connection as soon as method and path are known; the upstream sees nothing."""
    return Fault("refuse")


def hang() -> Fault:
    """Read, forward nothing and never answer, until the client goes away."""
    return Fault("hang")


def cut_request_after(count: int) -> Fault:
    """Forward the first ``count`` bytes of the request, headers included, then reset both sides.

    With 0 the upstream is not even connected to. The client's request is read to its end first, so the
    client sees the reset while it waits for the answer.
    """
    return Fault("cut_request_after", count=count)


def swallow_response() -> Fault:
    """Forward the request, wait for the whole answer, reset the client without a byte of it."""
    return Fault("swallow_response")


def cut_response_after(count: int) -> Fault:
    """Forward the request and the first ``count`` bytes of the answer, headers included, then reset."""
    return Fault("cut_response_after", count=count)


def delay_request(seconds: float) -> Fault:
    """Forward the request late; even when the client has given up by then, as a queue would."""
    return Fault("delay_request", seconds=seconds)


def delay_response(seconds: float) -> Fault:
    """Forward the request at once, but its answer late."""
    return Fault("delay_response", seconds=seconds)


def answer(
    status: int,
    body: str = HTML_502,
    content_type: str = "text/html",
    headers: tuple[tuple[str, str], ...] = (),
) -> Fault:
    """Answer in place of the upstream, which sees nothing, as a proxy without its backend does."""
    return Fault("answer", status=status, body=body, content_type=content_type, headers=headers)


def forward_then_answer(
    status: int,
    body: str = HTML_502,
    content_type: str = "text/html",
    headers: tuple[tuple[str, str], ...] = (),
) -> Fault:
    """Forward the request, wait for the whole answer, give another one instead."""
    return Fault("forward_then_answer", status=status, body=body, content_type=content_type, headers=headers)


def cut_stream_after(count: int) -> Fault:
    """Let ``count`` bytes of a WebSocket through to the client after its handshake, then reset both sides."""
    return Fault("cut_stream_after", count=count)


def stall_stream_after(count: int) -> Fault:
    """Let ``count`` bytes of a WebSocket through to the client, then keep it open and silent."""
    return Fault("stall_stream_after", count=count)


@dataclass
class Rule:
    """Which requests a fault meets.

    Rules are asked in order; the first that matches and is due takes the request, and later ones do not
    count it.

    :param fault: what happens.
    :param method: regular expression that the whole method matches.
    :param path: regular expression that the whole path with its query matches.
    :param first: the first matching request to meet the fault, from 1.
    :param times: how many meet it; None for all from ``first`` on.
    """

    fault: Fault
    method: str = ".*"
    path: str = ".*"
    first: int = 1
    times: int | None = None
    _seen: int = field(default=0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def takes(self, method: str, path: str) -> bool:
        """Count a request if it matches, and return whether it meets the fault."""
        if not (re.fullmatch(self.method, method) and re.fullmatch(self.path, path)):
            return False
        with self._lock:
            self._seen += 1
            return self.first <= self._seen < self.first + (self._seen if self.times is None else self.times)

    @property
    def hits(self) -> int:
        """How many requests have met the fault."""
        due = max(0, self._seen - self.first + 1)
        return due if self.times is None else min(due, self.times)
