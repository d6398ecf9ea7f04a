"""
Reads a job's log as a whole, or its last lines; flows as those of ``protocol``.

Two routes have it. ``GET /api/v0/logs/file`` of Ray's state API (``dashboard/modules/state/state_head.py``) gives the
file's bytes while the head reads them, at some 250 MB a second on Ray 2.60, and its last lines in a few milliseconds
whatever its size is. ``GET /api/jobs/{id}/logs`` of the Jobs API makes one JSON string of it in the head's memory, and
fails when a byte of it is not UTF-8. So the first is asked first. The second knows no node, so it also has the log of a
job whose node is not known; and a proxy may let only the Jobs API through.
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

#: Where Ray's dashboard hands out the files of a node.
LOG_FILE_ROUTE = "/api/v0/logs/file"

#: Seconds that reading a log may take.
LOG_WITHIN = 600.0

#: Bytes of a log that are held as one text.
LOG_LIMIT = 256 * 1024 * 1024

#: The first Ray that gives a file as it is. Older ones put a byte before each block: "1", or "0" before an error.
PLAIN_FILES_SINCE = (2, 45)
BLOCK = 64 * 1024

_ENDLESS = 2**62


def log_file_path(submission_id: str, node_id: str, extension: str = "log", lines: int = -1) -> str:
    """
    Return the path of a file that a job left on its node, with its query.

    :param node_id: the job's ``driver_node_id``.
    :param extension: ``log``, or what else is beside it.
    :param lines: how many of the last lines; -1 for all.
    """
    query = {"node_id": node_id, "filename": f"job-driver-{submission_id}.{extension}", "lines": lines}
    return f"{LOG_FILE_ROUTE}?{urlencode(query)}"


def file_error(response: Response) -> RayJobsError:
    """
    Return what an answer of the route means that is not the file.

    Ray itself answers with 500 when there is no such node or file. A proxy that passes the Jobs API only answers with
    403, 404, 405, a redirect to a login page, …; or, with status 200, a web page.
    """
    error = error_of(response)
    asks_for_login = isinstance(error, RayAuthError) and response.status == 401
    if asks_for_login or isinstance(error, RayClusterUnreachableError) or response.status in (400, 500):
        return error
    return RayRequestRefusedError(
        f"{response.address}: HTTP {response.status}: this cluster, or a proxy before it, does not serve GET "
        "/api/v0/logs/file; let the proxy pass it",
        status=response.status,
    )


def read_file(
    submission_id: str, node_id: str, begin: Callable[[], TakeText], *, lines: int = -1, limit: int = _ENDLESS
) -> Flow[None]:
    """
    Read a job's log, or its last lines, as its node has them (``GET /api/v0/logs/file``).

    Bytes that are not UTF-8 become replacement characters, and every kind of line end a line feed, as in the log that
    the Jobs API gives.

    :param node_id: the job's ``driver_node_id``.
    :param begin: called for each attempt; what it returns takes the text, piece by piece.
    :param lines: how many of the last lines; -1 for all.
    :param limit: bytes that the answer may have.
    :raises RayAPIError: the node is gone, has no such file, or the cluster has no such route.
    """
    version = yield from get_version()
    reader: _FileReader | None = None

    def receive() -> TakePiece:
        nonlocal reader
        reader = _FileReader(begin(), has_marks=_version_of(version.ray_version) < PLAIN_FILES_SINCE)
        return reader.feed

    path = log_file_path(submission_id, node_id, lines=lines)
    response = yield Request("GET", path, receive=receive, limit=limit, within=LOG_WITHIN)
    if response.status != 200 or reader is None:
        raise file_error(response)
    problem = reader.close()
    if problem:
        raise RayAPIError(f"{response.address}: Ray could not read the log of job {submission_id}: {problem}")


def _version_of(text: str) -> tuple[int, ...]:
    """Return the first two numbers of a version; a text that has none is taken for a newer Ray's."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})", text)
    return tuple(map(int, match.groups())) if match else PLAIN_FILES_SINCE


class _FileReader:
    """Makes text of a file's bytes, piece by piece."""

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
        """Take what is left; return an older Ray's error, an empty text if there was none."""
        for _ in self._take(self._decode(b"", final=True)) or ():
            pass
        return "" if self._error is None else " ".join(self._error.decode(errors="replace").split())


def read_json_log(submission_id: str, begin: Callable[[], TakeText], *, limit: int = _ENDLESS) -> Flow[None]:
    """
    Read a job's log by the Jobs API (``GET /api/jobs/{id}/logs``).

    :param begin: as in :func:`read_file`.
    :param limit: bytes that the answer may have.
    :raises RayJobNotFoundError: no such job.
    :raises RayAPIError: a byte of the log is not UTF-8, among other reasons.
    """
    reader: JsonTextReader | None = None

    def receive() -> TakePiece:
        nonlocal reader
        reader = JsonTextReader("logs", begin())
        return reader.feed

    request = Request("GET", f"{job_path(submission_id)}/logs", receive=receive, limit=limit, within=LOG_WITHIN)
    response = yield request
    if response.status != 200 or reader is None:
        raise error_of(response)
    try:
        reader.close()
    except AnswerBodyError as e:
        raise unusable_body(response.address, request, e) from None


def read_log(
    submission_id: str, node_id: str | None, begin: Callable[[], TakeText], *, try_json: bool = True
) -> Flow[None]:
    """
    Read a job's log by whichever route has it.

    :param node_id: the job's ``driver_node_id``, if it is known.
    :param begin: as in :func:`read_file`.
    :param try_json: whether the second route may be asked, which costs the head memory for the whole log.
    :raises RayJobsError: what the last route answered.
    """
    if not node_id:
        yield from read_json_log(submission_id, begin)
        return
    try:
        yield from read_file(submission_id, node_id, begin)
    except RayAPIError as e:
        if not try_json:
            raise
        first = e
    else:
        return
    try:
        yield from read_json_log(submission_id, begin)
    except RayAPIError as e:
        raise RayAPIError(f"{first}; {e}", status=e.status) from None


def get_job_logs(submission_id: str) -> Flow[str]:
    """
    Read a job's whole log as one text (``GET /api/jobs/{id}/logs``; where a byte is not UTF-8, by its file).

    :raises RayJobNotFoundError: no such job.
    :raises RayProtocolError: the log has more than :data:`LOG_LIMIT` bytes.
    """
    parts: list[str] = []

    def begin() -> TakeText:
        parts.clear()
        return parts.append

    try:
        yield from read_json_log(submission_id, begin, limit=LOG_LIMIT)
    except RayAPIError as e:
        if e.status != 500 or "UnicodeDecodeError" not in str(e):
            raise
        job = yield from get_job_info(submission_id)
        yield from read_file(submission_id, job.driver_node_id or "", begin, limit=LOG_LIMIT)
    return "".join(parts)
