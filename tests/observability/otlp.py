"""A collector that keeps the spans that it receives (OTLP over HTTP)."""

from __future__ import annotations

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Span(NamedTuple):
    """One span; ids are hex digits, times Unix seconds, the status is 0 (unset), 1 (OK) or 2 (error)."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began: float
    ended: float
    attributes: dict[str, Any]
    status: int


class Collector:
    """Listens on a port of the loopback address."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        spans = self._spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    spans.extend(_spans_in(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def spans(self, of: Callable[[Span], bool] = lambda _: True) -> list[Span]:
        """Return the spans that have arrived, by their beginning."""
        return sorted(filter(of, list(self._spans)), key=lambda span: span.began)

    def wait(self, of: Callable[[Span], bool], number: int = 1, timeout: float = 60.0) -> list[Span]:
        """Wait for spans."""
        deadline = time.monotonic() + timeout
        while len(found := self.spans(of)) < number:
            assert time.monotonic() < deadline, [span.name for span in self.spans()]
            time.sleep(0.2)
        return found


def _spans_in(body: bytes) -> list[Span]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano / 1e9,
            span.end_time_unix_nano / 1e9,
            {one.key: _value(one.value) for one in span.attributes},
            span.status.code,
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)  # Airflow 2.11 also sends attributes without a value
