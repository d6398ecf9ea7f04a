"""The faults of :class:`tests.support.faulty_proxy.FaultyProxy`, and the rules that apply them."""

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
    """One fault; create it with the functions below.

    :param kind: the name of the function that created it.
    :param count: bytes to forward before the cut.
    :param seconds: seconds to wait.
    :param status: status of the proxy's own response.
    :param body: body of that response.
    :param content_type: content type of that response.
    :param headers: other headers of that response.
    :param call: the arguments of :func:`call`.
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
    """A function to call during an exchange, see :func:`call`."""

    function: Callable[[], object]
    at: Moment
    pattern: str
    then: Fault | None


def call(function: Callable[[], object], at: Moment, pattern: str = "", then: Fault | None = None) -> Fault:
    """Call a function at a moment of the exchange, wait for its end, then continue.

    :param function: called in a separate thread each time.
    :param at: ``received`` (by the proxy; the upstream has seen nothing), ``forwarded`` (the upstream has the request,
        and may have answered), ``answered`` (by the upstream; the client has seen nothing), or ``delivered`` (the
        client has the whole response).
    :param pattern: regular expression; the function is called only if it occurs in the response's body. Only for
        ``answered`` and ``delivered``.
    :param then: the fault that follows after ``received``; by default none.
    """
    return Fault("call", call=Call(function, at, pattern, then))


def refuse() -> Fault:
    """Reset the connection when method and path are known; the upstream sees nothing."""
    return Fault("refuse")


def hang() -> Fault:
    """Read, but forward nothing and never answer, until the client disconnects."""
    return Fault("hang")


def cut_request_after(count: int) -> Fault:
    """Forward the first ``count`` bytes of the request, headers included, then reset both sides.

    With 0, the proxy does not connect to the upstream. It first reads the whole request, so the client sees the reset
    while it waits for the response.
    """
    return Fault("cut_request_after", count=count)


def swallow_response() -> Fault:
    """Forward the request, wait for the whole response, then reset the client without sending a byte of it."""
    return Fault("swallow_response")


def cut_response_after(count: int) -> Fault:
    """Forward the request and the first ``count`` bytes of the response, headers included, then reset."""
    return Fault("cut_response_after", count=count)


def delay_request(seconds: float) -> Fault:
    """Forward the request late, even if the client has already given up, as a queue would."""
    return Fault("delay_request", seconds=seconds)


def delay_response(seconds: float) -> Fault:
    """Forward the request at once, but the response late."""
    return Fault("delay_response", seconds=seconds)


def answer(
    status: int,
    body: str = HTML_502,
    content_type: str = "text/html",
    headers: tuple[tuple[str, str], ...] = (),
) -> Fault:
    """Respond instead of the upstream, which sees nothing, like a proxy whose backend is down."""
    return Fault("answer", status=status, body=body, content_type=content_type, headers=headers)


def forward_then_answer(
    status: int,
    body: str = HTML_502,
    content_type: str = "text/html",
    headers: tuple[tuple[str, str], ...] = (),
) -> Fault:
    """Forward the request, wait for the whole response, and send another one instead."""
    return Fault("forward_then_answer", status=status, body=body, content_type=content_type, headers=headers)


def cut_stream_after(count: int) -> Fault:
    """Forward ``count`` bytes of a WebSocket to the client after the handshake, then reset both sides."""
    return Fault("cut_stream_after", count=count)


def stall_stream_after(count: int) -> Fault:
    """Forward ``count`` bytes of a WebSocket to the client, then keep it open without sending anything."""
    return Fault("stall_stream_after", count=count)


@dataclass
class Rule:
    """Selects the requests to which a fault is applied.

    The proxy tries its rules in order. The first one that matches and is due takes the request; later rules do not
    count it.

    :param fault: the fault.
    :param method: regular expression for the whole method.
    :param path: regular expression for the whole path with its query.
    :param first: number of the first matching request to which the fault is applied, from 1.
    :param times: to how many requests it is applied; None for all from ``first`` on.
    """

    fault: Fault
    method: str = ".*"
    path: str = ".*"
    first: int = 1
    times: int | None = None
    _seen: int = field(default=0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def takes(self, method: str, path: str) -> bool:
        """Count a request if it matches, and return whether the fault is applied to it."""
        if not (re.fullmatch(self.method, method) and re.fullmatch(self.path, path)):
            return False
        with self._lock:
            self._seen += 1
            return self.first <= self._seen < self.first + (self._seen if self.times is None else self.times)

    @property
    def hits(self) -> int:
        """How many requests the fault was applied to."""
        due = max(0, self._seen - self.first + 1)
        return due if self.times is None else min(due, self.times)
