"""
Reads a job's whole log, or its last lines, by flows like those of ``verbs``.

Two routes serve it:

- ``GET /api/v0/logs/file`` of Ray's state API (``dashboard/modules/state/state_head.py``) streams the file's bytes, at
  about 250 MB/s on Ray 2.60. It returns the last lines in a few milliseconds, whatever the file's size. So it is tried
  first.
- ``GET /api/jobs/{id}/logs`` of the Jobs API builds one JSON string in the head's memory, and fails if a byte of the
  log is not UTF-8. It needs no node id, and works behind a proxy that passes only the Jobs API.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow_provider_rayjobs.client.answer_body import AnswerBodyError, TakePiece
from airflow_provider_rayjobs.client.answers import error_of, unusable_body
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.client.json_stream import JsonTextReader
from airflow_provider_rayjobs.client.verbs import get_job_info, get_version, job_path
from airflow_provider_rayjobs.exceptions import (
    RayAPIError,
    RayAuthError,
    RayClusterUnreachableError,
    RayJobsError,
    RayRequestRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_rayjobs.client.exchange import Flow, Response

    TakeText = Callable[[str], Iterable[None] | None]

#: Route of Ray's dashboard that serves the log files of a node.
LOG_FILE_ROUTE = "/api/v0/logs/file"

#: Seconds that reading a log may take.
LOG_WITHIN = 600.0

#: Maximum size of a log that is kept in memory as one string, in bytes.
LOG_LIMIT = 256 * 1024 * 1024

#: The first Ray that sends a file as it is. Older ones put a mark before each block: "1", or "0" before an error.
PLAIN_FILES_SINCE = (2, 45)
BLOCK = 64 * 1024

_ENDLESS = 2**62


def log_file_path(submission_id: str, node_id: str, extension: str = "log", lines: int = -1) -> str:
    """
    Return the path and query for a file that a job left on its node.

    :param node_id: the job's ``driver_node_id``.
    :param extension: ``log``, or the extension of another file of the job.
    :param lines: number of last lines; -1 for all.
    """
    query = {"node_id": node_id, "filename": f"job-driver-{submission_id}.{extension}", "lines": lines}
    return f"{LOG_FILE_ROUTE}?{urlencode(query)}"


def file_error(response: Response) -> RayJobsError:
    """
    Return the error for an answer of this route that is not the file.

    Ray answers 500 if there is no such node or file. A proxy that passes only the Jobs API answers 403, 404, 405, a
    redirect to a login page, or 200 with a web page.
    """
    error = error_of(response)
    asks_for_login = isinstance(error, RayAuthError) and response.status == 401
    if asks_for_login or isinstance(error, RayClusterUnreachableError) or response.status in (400, 500):
        return error
    return RayRequestRefusedError(
        f"{response.address}: HTTP {response.status}: the cluster, or a proxy in front of it, does not serve GET "
        "/api/v0/logs/file; configure the proxy to pass it",
        status=response.status,
        address=response.address,
    )


def read_file(
    submission_id: str,
    node_id: str,
    begin: Callable[[], TakeText],
    *,
    lines: int = -1,
    limit: int = _ENDLESS,
    within: float = LOG_WITHIN,
) -> Flow[None]:
    """
    Read a job's log, or its last lines, from the job's node (``GET /api/v0/logs/file``).

    Bytes that are not UTF-8 become replacement characters, and all line ends become line feeds, as in the log that the
    Jobs API returns.

    :param node_id: the job's ``driver_node_id``.
    :param begin: called for each attempt; what it returns takes the text, piece by piece.
    :param lines: number of last lines; -1 for all.
    :param limit: maximum size of the answer, in bytes.
    :param within: seconds that it may take.
    :raises RayAPIError: the node is gone, has no such file, or the cluster has no such route.
    """
    version = yield from get_version()
    reader: _FileReader | None = None

    def receive() -> TakePiece:
        nonlocal reader
        reader = _FileReader(begin(), has_marks=_version_of(version.ray_version) < PLAIN_FILES_SINCE)
        return reader.feed

    path = log_file_path(submission_id, node_id, lines=lines)
    refused = ("text/html", "application/json")  # Ray's type is text/plain; a proxy may answer with a page
    response = yield Request("GET", path, receive=receive, limit=limit, within=within, refused_types=refused)
    if response.status != 200 or reader is None:
        raise file_error(response)
    problem = reader.close()
    if problem:
        raise RayAPIError(
            f"{response.address}: Ray could not read the log of job {submission_id}: {problem}",
            address=response.address,
            reason=str(problem),
        )


def _version_of(text: str) -> tuple[int, ...]:
    """Return the first two numbers of a version; text without them counts as a newer Ray."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})", text)
    return tuple(map(int, match.groups())) if match else PLAIN_FILES_SINCE


class _FileReader:
    """Decodes the bytes of a file to text, piece by piece."""

    def __init__(self, take: TakeText, *, has_marks: bool) -> None:
        self._take = take
        self._left = 0 if has_marks else _ENDLESS  # bytes until the next mark
        self._error: bytearray | None = None
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._decode = io.IncrementalNewlineDecoder(decoder, translate=True).decode

    def feed(self, data: bytes) -> Iterable[None]:
        plain = bytearray()
        while data:
            if self._error is not None:
                self._error += data[: 1000 - len(self._error)]
                break
            if self._left == 0:
                self._error = None if data[:1] == b"1" else bytearray()
                data, self._left = data[1:], BLOCK
                continue
            plain += data[: self._left]
            data, self._left = data[self._left :], self._left - len(data[: self._left])
        return self._take(self._decode(bytes(plain))) or ()

    def close(self) -> str:
        """Pass on the rest of the text; return the error of an older Ray, or an empty string."""
        for _ in self._take(self._decode(b"", final=True)) or ():
            pass
        return "" if self._error is None else " ".join(self._error.decode(errors="replace").split())


def read_json_log(
    submission_id: str, begin: Callable[[], TakeText], *, limit: int = _ENDLESS, within: float = LOG_WITHIN
) -> Flow[None]:
    """
    Read a job's log through the Jobs API (``GET /api/jobs/{id}/logs``).

    :param begin: as in :func:`read_file`.
    :param limit: maximum size of the answer, in bytes.
    :param within: seconds that it may take.
    :raises RayJobNotFoundError: there is no such job.
    :raises RayAPIError: a byte of the log is not UTF-8, among other reasons.
    """
    reader: JsonTextReader | None = None

    def receive() -> TakePiece:
        nonlocal reader
        reader = JsonTextReader("logs", begin())
        return reader.feed

    request = Request("GET", f"{job_path(submission_id)}/logs", receive=receive, limit=limit, within=within)
    response = yield request
    if response.status != 200 or reader is None:
        raise error_of(response)
    try:
        reader.close()
    except AnswerBodyError as e:
        raise unusable_body(response.address, request, e) from None


def read_log(
    submission_id: str,
    node_id: str | None,
    begin: Callable[[], TakeText],
    *,
    try_json: bool = True,
    within: float = LOG_WITHIN,
) -> Flow[None]:
    """
    Read a job's log through either route.

    :param node_id: the job's ``driver_node_id``, if it is known.
    :param begin: as in :func:`read_file`.
    :param try_json: whether to try the second route, which needs memory for the whole log on the head.
    :param within: seconds that each route may take.
    :raises RayJobsError: the last route that was tried failed.
    """
    if not node_id:
        if not try_json:
            raise RayAPIError(f"the node of job {submission_id} is not known")
        yield from read_json_log(submission_id, begin, within=within)
        return
    try:
        yield from read_file(submission_id, node_id, begin, within=within)
    except RayAPIError as e:
        if not try_json:
            raise
        first = e
    else:
        return
    try:
        yield from read_json_log(submission_id, begin, within=within)
    except RayAPIError as e:
        raise RayAPIError(f"{first}; {e}", status=e.status, address=e.address, reason=e.reason) from None


def get_job_logs(submission_id: str) -> Flow[str]:
    """
    Read a job's whole log as one string (``GET /api/jobs/{id}/logs``; if a byte is not UTF-8, from its file).

    :raises RayJobNotFoundError: there is no such job.
    :raises RayProtocolError: the log has more than :data:`LOG_LIMIT` bytes.
    """
    parts: list[str] = []

    def begin() -> TakeText:
        parts.clear()
        return parts.append

    try:
        yield from read_json_log(submission_id, begin, limit=LOG_LIMIT)
    except RayAPIError as e:
        if e.status != 500 or "UnicodeDecodeError" not in e.reason:
            raise
        job = yield from get_job_info(submission_id)
        yield from read_file(submission_id, job.driver_node_id or "", begin, limit=LOG_LIMIT)
    return "".join(parts)
