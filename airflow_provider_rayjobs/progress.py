"""
Progress of a function that runs as a Ray job, from the cluster into the task's log and XCom.

A report is a line of the job's log between two control characters, with a checksum. Who follows the log takes it out.

This module is shipped to the cluster: it needs the standard library only, of Python 3.9 or newer.
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two reports of a job, and between two lines in the task log, at least.
EMIT_INTERVAL = 2.0
SHOW_INTERVAL = 5.0

#: Longest message, in characters.
LONGEST_MESSAGE = 200

#: Begins and ends each frame.
FRAME_EDGE = "\x1e"
#: The longest report has 200 characters, for each of which JSON needs up to 12 (two escapes), and two numbers.
_FRAME = re.compile(r"\x1erayjobs-progress ([0-9a-f]{8}) (\{[^\x1e]{1,2600}\})\x1e")

#: Airflow hands on no larger integer than one of 64 bits.
_LARGEST_INTEGER = 2**63 - 1


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """
    Report how far the function has come; call it in the function itself, as often as you like.

    At most one report every two seconds leaves the job, and the last one always. Outside a Ray job made by
    ``@task.ray_job``, and in the Ray tasks and actors of one, it does nothing.

    :param done: how much is done: items, bytes, a share.
    :param total: how much there is to do, if that is known.
    :param message: a few words.
    :raises TypeError: ``done`` or ``total`` is no number.
    """
    for name, value in (("done", done), ("total", total)):
        if not _is_number(value) and (value is not None or name == "done"):
            raise TypeError(f"progress: {name} must be a finite number, not {value!r}")
    text = " ".join(str(message).split())[:LONGEST_MESSAGE]
    _REPORTER.report({"done": _short(done), "total": _short(total), "message": text})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _short(number: Any) -> Any:
    return float(number) if isinstance(number, int) and abs(number) > _LARGEST_INTEGER else number


class Reporter:
    """Sends the reports of this process on, not more often than is of use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._write: Callable[[str], object] | None = None
        self._sent_at = float("-inf")
        self._pending = False
        self.last: dict[str, Any] | None = None

    def start(self, write: Callable[[str], object]) -> None:
        """
        Begin to send.

        :param write: takes a text and writes it at once, undivided.
        """
        self._write = write

    def report(self, report: dict[str, Any]) -> None:
        """Take a report."""
        with self._lock:
            self.last, self._pending = report, True
            if time.monotonic() - self._sent_at >= EMIT_INTERVAL:
                self._send()

    def flush(self) -> None:
        """Send the last report if that was not done yet."""
        with self._lock:
            if self._pending:
                self._send()

    def _send(self) -> None:
        if self._write is not None and self.last is not None:
            self._write(to_line(self.last))
        self._sent_at, self._pending = time.monotonic(), False


_REPORTER = Reporter()


def reporter() -> Reporter:
    """Return the reporter of this process."""
    return _REPORTER


def to_line(report: dict[str, Any]) -> str:
    """Return a report as a line of the job's log."""
    body = json.dumps(report)
    return f"\x1erayjobs-progress {zlib.crc32(body.encode()):08x} {body}\x1e\n"


def from_line(line: str) -> tuple[str, dict[str, Any] | None]:
    """
    Take the last report out of a line of a job's log.

    :param line: the line; text of other processes may stand before and behind the report.
    :return: the rest of the line, and the report if there is one that is whole.
    """
    if "\x1erayjobs-progress " not in line:
        return line, None
    report: dict[str, Any] | None = None

    def take(match: re.Match[str]) -> str:
        nonlocal report
        if f"{zlib.crc32(match[2].encode()):08x}" != match[1]:
            return match[0]
        try:
            report = checked(json.loads(match[2]))
        except (RecursionError, ValueError):
            return match[0]
        return ""

    return _FRAME.sub(take, line), report


def checked(report: Any) -> dict[str, Any]:
    """
    Return a report that came from a cluster.

    :raises ValueError: it is none.
    """
    if not isinstance(report, dict):
        raise ValueError(f"not a progress report: {report!r}"[:200])
    done, total, message = _number(report.get("done")), _number(report.get("total")), report.get("message")
    if not _is_number(done) or not (total is None or _is_number(total)):
        raise ValueError(f"not a progress report: {report!r}"[:200])
    return {"done": _short(done), "total": _short(total), "message": str(message or "")[:LONGEST_MESSAGE]}


def stored(report: dict[str, Any]) -> dict[str, Any]:
    """
    Return a report as Airflow can store it; :func:`checked` reads it again.

    A number of more than 64 bits becomes a text: PostgreSQL's JSONB has no floats and gives 1e40 back as an integer,
    and Airflow 3 can't hand such an integer on to the task that resumes.
    """
    large = [name for name in ("done", "total") if abs(report[name] or 0) > _LARGEST_INTEGER]
    return {**report, **{name: repr(report[name]) for name in large}}


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def describe(report: dict[str, Any]) -> str:
    """Return a report as a reader of the task log sees it."""
    done, total, message = report["done"], report["total"], report["message"]
    share = f"/{total:.10g} ({100 * done / total:.0f} %)" if total else ""
    return f"Progress: {done:.10g}{share}{', ' if message else ''}{message}"


class ProgressLines:
    """
    Takes the reports out of a job's log, and shows one now and then.

    :param show: takes the line that a reader sees.
    :param clock: monotonic clock, in seconds.
    """

    def __init__(self, show: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock = clock
        self._shown_at = float("-inf")
        self._pending = False
        self.last: dict[str, Any] | None = None

    def take(self, line: str) -> str | None:
        """Return a line of the log without its report; None when nothing else was in it."""
        rest, report = from_line(line)
        if report is None:
            return line
        self.last, self._pending = report, True
        if self._clock() - self._shown_at >= SHOW_INTERVAL:
            self.flush()
        return rest or None

    def flush(self) -> None:
        """Show the last report if that was not done yet."""
        if self._pending and self.last is not None:
            self._show(describe(self.last))
            self._shown_at, self._pending = self._clock(), False
