"""
Reads the result of a job: the file that a function's driver, or the job's own code, wrote beside the job's log.

Ray's dashboard serves the file with ``GET /api/v0/logs/file``. What the job prints neither slows that down nor damages
the result. The submission, the length and the digest are checked; nothing is unpickled.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs import metadata, progress
from airflow_provider_rayjobs.client.answers import decode_json
from airflow_provider_rayjobs.client.contact import Contact
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.client.log_files import LOG_FILE_ROUTE, file_error, log_file_path, read_file
from airflow_provider_rayjobs.exceptions import (
    RayAPIError,
    RayClusterUnreachableError,
    RayJobResultError,
    RayJobsError,
    RayProtocolError,
    RayRequestRefusedError,
)
from airflow_provider_rayjobs.functions.package import RESULT_LIMIT
from airflow_provider_rayjobs.functions.shipped import values
from airflow_provider_rayjobs.functions.shipped.result_file import (
    FORMAT,
    FORMAT_WITH_KEY,
    STORED_LIMIT,
    name_of_stored,
)
from airflow_provider_rayjobs.text.safe_text import for_terminal

if TYPE_CHECKING:
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
    from airflow_provider_rayjobs.client.answer_body import TakePiece
    from airflow_provider_rayjobs.client.exchange import Flow
    from airflow_provider_rayjobs.jobs import JobDetails

#: Bytes that a file may have beside the value: its description, and what older versions of Ray add.
_MARGIN = 64 * 1024

#: Seconds between two attempts, and most attempts after an error that may be gone a moment later.
_PAUSE = 2.0
_ATTEMPTS = 3

#: Ray up to 2.40 or later puts a byte before each block of a file: "1", or "0" before an error.
_BLOCK = 64 * 1024


class NoResultError(RayJobResultError):
    """The job wrote no result, or older Ray does not say why it can't be read."""


@dataclass(frozen=True)
class Record:
    """
    The checked content of a result file.

    :param outcome: ``value``, ``error`` or ``stored``.
    :param text: the value as JSON, or the traceback; empty when the value is stored elsewhere.
    :param size: bytes of the value.
    :param sha256: digest of the value.
    :param key: a part of the name of a value that is stored elsewhere; empty if it has none.
    :param progress: a function's last report of its progress.
    """

    outcome: str
    text: str
    size: int
    sha256: str
    key: str = ""
    progress: dict[str, Any] | None = None


async def read_record(transport: AiohttpTransport, submission_id: str, job: JobDetails, log: Any) -> Record:
    """
    Read the result of a job (``GET /api/v0/logs/file``).

    :param submission_id: a job that has ended.
    :param job: its details.
    :param log: logger for lost contact.
    :raises NoResultError: if the job wrote none.
    :raises RayJobResultError: if it can't be read, for example because its node is gone, or it is damaged.
    :raises RayRequestRefusedError: if the credentials were refused, or the route is not served.
    :raises RayClusterUnreachableError: if there was no contact for the connection's ``unreachable_timeout``.
    """
    contact, attempts = Contact(transport.cluster.unreachable_timeout, log), 0
    name = f"Ray job {submission_id}"
    while True:
        try:
            data = await transport.run(_fetch(submission_id, job.driver_node_id or ""))
            contact.back()
            return parse_record(data, f"{transport.cluster.address}: {name}", job.metadata.get(metadata.SUBMISSION))
        except RayClusterUnreachableError as e:
            if detail := contact.failed(e):
                raise RayClusterUnreachableError(f"The result of {name}: {detail}", address=e.address) from None
        except RayRequestRefusedError as e:
            what = f"The result of {name} can't be read (GET {LOG_FILE_ROUTE}): {e}"
            raise type(e)(what, status=e.status, address=e.address, reason=e.reason) from None
        except RayProtocolError as e:
            raise RayJobResultError(f"{name}: its result is damaged: {e}", submission_id=submission_id) from None
        except RayAPIError as e:
            attempts += 1
            if attempts == _ATTEMPTS or "not found" in e.reason:
                # The node's agent answered with 200, and an older Ray adds why it has no content, or does not.
                none = "not found" in e.reason
                if e.status == 200 and not e.reason:
                    none = await _has_log(transport, submission_id, job.driver_node_id or "")
                kind = NoResultError if none else RayJobResultError
                raise kind(
                    f"The result of {name} is missing: its process ended before it wrote one, or the node that it ran "
                    f"on is gone ({e})",
                    submission_id=submission_id,
                ) from e
        await asyncio.sleep(_PAUSE)


async def _has_log(transport: AiohttpTransport, submission_id: str, node_id: str) -> bool:
    """Return whether the job's log can be read from its node: then the node would have the result, too."""
    try:
        await transport.run(read_file(submission_id, node_id, lambda: lambda _: None, lines=1, limit=_MARGIN))
    except RayJobsError:
        return False
    return True


def _fetch(submission_id: str, node_id: str) -> Flow[bytes]:
    data = bytearray()

    def receive() -> TakePiece:
        data.clear()
        return data.extend

    path = log_file_path(submission_id, node_id, "result")
    response = yield Request("GET", path, receive=receive, limit=RESULT_LIMIT + _MARGIN)
    if response.status != 200:
        raise file_error(response)
    if data[:1] == b"<":  # a web page; our files begin differently
        raise file_error(response)
    if bytes(data[:1]) in (b"", b"0"):  # an error of an older Ray, often without a text
        said = for_terminal(" ".join(data[1:1000].decode(errors="replace").split()))
        raise RayAPIError(
            f"{response.address}: {said or 'an empty answer'}", status=200, address=response.address, reason=said
        )
    return bytes(data)


def parse_record(data: bytes, job: str, submission: str | None) -> Record:
    """
    Check the file's content.

    :param data: as Ray's dashboard serves it.
    :param job: the job, for messages.
    :param submission: what identifies the submission, as :data:`~airflow_provider_rayjobs.metadata.SUBMISSION` does.
    :raises RayJobResultError: if it is damaged, or of another job.
    """
    try:
        if data[:1] == b"1":
            data = b"".join(data[i + 1 : i + 1 + _BLOCK] for i in range(0, len(data), _BLOCK + 1))
        head, _, body = data.partition(b"\n")
        header = decode_json(head.decode())
        if not isinstance(header, dict) or header.get("format") not in (FORMAT, FORMAT_WITH_KEY):
            raise ValueError("it has an unknown format")
        if header.get("submission") != submission:
            raise ValueError("it is that of another job, which had this id before")
        outcome = header.get("outcome")
        if outcome not in ("value", "error", "stored"):
            raise ValueError(f"it has the unknown outcome {str(outcome)[:100]!r}")
        if not isinstance(header["bytes"], int) or header["bytes"] < 0 or not isinstance(header["sha256"], str):
            raise ValueError("its size or its digest is missing")
        if outcome == "stored" and header["bytes"] < 1:
            raise ValueError("no value has 0 bytes")
        record = Record(
            outcome,
            body.decode("ascii"),
            header["bytes"],
            header["sha256"],
            _checked_key(header) if outcome == "stored" else "",
            None if header.get("progress") is None else progress.checked(header["progress"]),
        )
        if outcome != "stored":
            check_digest(body, record)
        return record
    except (KeyError, ValueError) as e:
        raise RayJobResultError(f"{job}: its result is damaged: {e}") from e


def _checked_key(header: dict[str, Any]) -> str:
    if header["format"] == FORMAT and "key" not in header:
        return ""  # an older version of the provider submitted the job
    key = header.get("key")
    if not isinstance(key, str) or not re.fullmatch("[0-9a-f]{16}", key):
        raise ValueError("it does not say where the value is stored")
    return key


def check_digest(data: bytes, record: Record) -> None:
    """
    Check a value's bytes.

    :raises ValueError: if they are not the bytes that the job wrote.
    """
    if len(data) != record.size or hashlib.sha256(data).hexdigest() != record.sha256:
        raise ValueError(f"the {len(data):,} bytes received are not the {record.size!r} bytes that the job wrote")


def stored_at(result_path: str, submission_id: str, record: Record) -> str:
    """Return the URL of a large value in the folder ``result_path``."""
    return f"{result_path.rstrip('/')}/{name_of_stored(submission_id, record.key)}"


def check_stored_size(record: Record, job: str) -> None:
    """
    Check the size of a value that is stored elsewhere, before it is read.

    :raises RayJobResultError: if it is too large.
    """
    if record.size > STORED_LIMIT:
        raise RayJobResultError(
            f"{job}: its result has {record.size:,} bytes, and a task returns at most {STORED_LIMIT:,}"
        )


def value_of(record: Record, job: str, stored: bytes | None = None) -> Any:
    """
    Return the value.

    :param stored: the value's bytes, if it was stored elsewhere.
    :raises RayJobResultError: if it is damaged.
    """
    try:
        if stored is not None:
            check_digest(stored, record)
        return values.loads(record.text if stored is None else stored.decode("ascii"))
    except ValueError as e:
        raise RayJobResultError(f"{job}: its result is damaged: {e}") from e


def traceback_of(record: Record) -> str:
    """Return the traceback of a function that failed."""
    try:
        return str(json.loads(record.text)).rstrip()
    except (ValueError, RecursionError):
        return record.text
