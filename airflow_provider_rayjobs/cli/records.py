"""Jobs as the commands show them: as records for scripts, as text for people, and without secrets."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import redact

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.runtime_env import public_runtime_env
from airflow_provider_rayjobs.compat.masking import public_for
from airflow_provider_rayjobs.jobs import JobStatus
from airflow_provider_rayjobs.text.ray_messages import LOGS_FOLLOW
from airflow_provider_rayjobs.text.safe_text import for_terminal, without_logins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import TextIO

    from airflow_provider_rayjobs.jobs import JobDetails

#: Maximum number of characters of an entrypoint or a message, if the output is no terminal.
LONGEST_TEXT = 200

#: Least room for the last column of a list, in characters; a narrower terminal wraps it.
LEAST_ROOM = 20

#: The columns of ``list --output plain``. The last one may contain blanks.
PLAIN = ("submission_id", "status", "start_time", "duration", "dag_id", "run_id", "task_id", "entrypoint")


def record_of(job: JobDetails) -> dict[str, Any]:
    """
    Return what a list shows of a job, as JSON values.

    Fields that Ray has, too, have Ray's names and units: times are Unix milliseconds. ``duration`` is in seconds; that
    of a job that has not ended is its duration so far.
    """
    public = public_for(job)
    end = job.end_time or (None if job.status.is_terminal else time.time() * 1000)
    duration = None if job.start_time is None or end is None else max(round((end - job.start_time) / 1000, 1), 0.0)
    return {
        "submission_id": job.submission_id,
        "status": str(job.status),
        "start_time": job.start_time,
        "end_time": job.end_time,
        "duration": duration,
        "driver_exit_code": job.driver_exit_code,
        "error_type": job.error_type,
        "dag_id": job.metadata.get(keys.DAG_ID),
        "run_id": job.metadata.get(keys.RUN_ID),
        "task_id": job.metadata.get(keys.TASK_ID),
        "map_index": _number(job.metadata.get(keys.MAP_INDEX)),
        "try_number": _number(job.metadata.get(keys.TRY_NUMBER)),
        "entrypoint": without_logins(public(job.entrypoint)),
        "message": job.message and without_logins(public(job.message)),
    }


def details_of(job: JobDetails) -> dict[str, Any]:
    """Return all details of a job, as JSON values: those of :func:`record_of`, and Ray's other fields."""
    record = record_of(job)
    others = {name: value for name, value in asdict(job).items() if name not in record}
    others["runtime_env"] = public_runtime_env(job.runtime_env)
    cleaned: dict[str, Any] = redact(record | others)  # type: ignore[assignment]  # a dict stays one
    return cleaned


def _number(text: str | None) -> int | None:
    """Return a number in a job's metadata; None if it is none, because anyone can write metadata."""
    return int(text) if text and re.fullmatch("-?[0-9]{1,9}", text) else None


def list_lines(jobs: Iterable[JobDetails], width: int | None) -> Iterator[str]:
    """
    Yield the lines of a list: for each job its status, times and name, then its id, and the error of a failed job.

    The id is whole and alone on its line, so that a double click selects it.

    :param width: of the terminal, in characters; None if the output is no terminal.
    """
    rows: list[tuple[str, str, str, Mapping[str, Any]]] = [("STATUS", "STARTED (UTC)", "DURATION", {})]
    rows += [
        (record["status"], minute(record["start_time"]), span(record["duration"]), record)
        for record in map(record_of, jobs)
    ]
    longest = max(len(status) for status, *_ in rows)
    for status, start, duration, record in rows:
        begin = f"{status:{longest}}  {start:16}  {duration:>8}  "
        room = None if width is None else max(width - len(begin), LEAST_ROOM)
        yield begin + (_name(record, room) if record else "TASK OR ENTRYPOINT")
        if record:
            yield f"  {_line(record['submission_id'])}"
        if record.get("message") and status == JobStatus.FAILED:
            first = record["message"].strip().partition("\n")[0].partition(LOGS_FOLLOW)[0]
            yield f"  {_cut(first, (width or LONGEST_TEXT) - 2)}"


def _name(record: Mapping[str, Any], room: int | None) -> str:
    """Return the task that submitted a job, or the job's entrypoint if no task did."""
    if not record["dag_id"]:
        return _cut(record["entrypoint"], room or LONGEST_TEXT)
    index = record["map_index"]
    mapped = "" if index is None or index < 0 else f"[{index}]"
    name = _line(f"{record['dag_id']}.{record['task_id'] or ''}{mapped}")
    if room is None or len(name) <= room:
        return name
    kept = room - 3  # at both ends, which tell tasks apart
    return f"{name[: kept // 2]}...{name[kept // 2 - kept :]}"


def _cut(text: str, room: int) -> str:
    """Return a text as one line of at most ``room`` characters."""
    line = _line(text)
    return line if len(line) <= room else f"{line[: max(room - 3, 0)]}..."


def _line(text: str) -> str:
    """Return a text as one line that a terminal can show."""
    return for_terminal(" ".join(text.split()))


def column_lines(jobs: Iterable[JobDetails]) -> Iterator[str]:
    """Yield a list of jobs with one line for each, in columns without blanks, except for the last one."""
    rows: list[tuple[str, ...]] = [PLAIN]
    for record in map(record_of, jobs):
        shown = record | {"start_time": moment(record["start_time"], "%Y-%m-%dT%H:%M:%SZ")}
        rows.append(tuple(_word(shown[name]) for name in PLAIN))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for *words, last in rows:
        yield "  ".join([*(f"{word:{width}}" for word, width in zip(words, widths, strict=True)), last])


def _word(value: object) -> str:
    return "-" if value is None else _line(str(value)) or "-"


def property_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """
    Yield the details of a job for people; the longest, Ray's message, is last.

    :param record: as of :func:`details_of`. What the provider itself keeps in the metadata is left out.
    """
    shown = {
        **record,
        "start_time": moment(record["start_time"]),
        "end_time": moment(record["end_time"]),
        "duration": span(record["duration"]),
        "map_index": None if record["map_index"] == -1 else record["map_index"],
        "metadata": {key: text for key, text in record["metadata"].items() if not key.startswith(keys.PREFIX)},
    }
    shown["message"] = (shown.pop("message") or "").rstrip()
    shown = {name: value for name, value in shown.items() if value not in (None, "", "-", {})}
    width = max(map(len, shown))
    for name, value in shown.items():
        text = json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict) else str(value)
        lines = for_terminal(text).split("\n")
        if len(lines) == 1:
            yield f"{name:{width}}  {lines[0]}"
        else:
            yield name
            yield from (f"  {line}" for line in lines)


def moment(milliseconds: int | None, form: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """Return a time in UTC, ``-`` if there is none."""
    return "-" if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).strftime(form)


def minute(milliseconds: int | None) -> str:
    """Return the minute of a time in UTC."""
    return moment(milliseconds, "%Y-%m-%d %H:%M")


def span(seconds: float | None) -> str:
    """Return a duration in its two largest units, such as ``2m13s`` or ``0.9s``; ``-`` if there is none."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def print_for_scripts(records: list[dict[str, Any]], output: str, out: TextIO) -> None:
    """Print records as ``json`` or ``yaml``; numbers stay numbers."""
    if output == "json":
        json.dump(_json_values(records), out, indent=2, allow_nan=False)
        out.write("\n")
        return
    from airflow.utils import yaml

    out.write(yaml.dump(records, sort_keys=False))


def _json_values(value: Any) -> Any:
    """Return a value without NaN and infinity, which JSON does not have, but Python's ``json`` reads and writes."""
    if isinstance(value, dict):
        return {key: _json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
