"""
Reports the progress of a Ray job, for the task's log and XCom.

A report is a frame in the job's log: JSON with a checksum, between two control characters. The follower of the log
removes it.

This module is shipped to the cluster, so it may use only the standard library of Python 3.9 and newer.
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

__all__ = ["progress"]

#: Minimum seconds between two reports of a job, and between two lines in the task log.
EMIT_INTERVAL = 2.0
SHOW_INTERVAL = 5.0

#: Maximum length of a message, in characters.
LONGEST_MESSAGE = 200

#: Begins and ends each frame.
FRAME_EDGE = "\x1e"
#: The longest report has two numbers and 200 characters, each of which takes up to 12 in JSON (two escapes).
_FRAME = re.compile(r"\x1erayjobs-progress ([0-9a-f]{8}) (\{[^\x1e]{1,2600}\})\x1e")

#: Airflow can't pass on integers of more than 64 bits.
_LARGEST_INTEGER = 2**63 - 1


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """
    Report the progress of a job; call it in the process of its entrypoint or function, as often as you like.

    At most one report every two seconds is sent; the last one always is. In the job's Ray tasks and actors, and outside
    of a job whose task reads its result, this does nothing.

    :param done: how much is done, in any unit: items, bytes, a fraction.
    :param total: how much there is in total, in the same unit, if that is known.
    :param message: a short text; longer ones are cut after 200 characters.
    :raises TypeError: ``done`` or ``total`` is not a finite number.
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
    """Sends the reports of this process, at most one every :data:`EMIT_INTERVAL` seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._write: Callable[[str], object] | None = None
        self._sent_at = float("-inf")
        self._pending = False
        self.last: dict[str, Any] | None = None

    def start(self, write: Callable[[str], object]) -> None:
        """
        Start sending reports.

        :param write: function that writes a text immediately and in one piece.
        """
        self._write = write

    def report(self, report: dict[str, Any]) -> None:
        """Send a report, unless the last one was sent too recently."""
        with self._lock:
            self.last, self._pending = report, True
            if time.monotonic() - self._sent_at >= EMIT_INTERVAL:
                self._send()

    def flush(self) -> None:
        """Send the last report if it was not sent yet."""
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
    Remove all reports from a line of a job's log.

    :param line: the line; it may contain text of other processes around a report.
    :return: the rest of the line, and the last report; None if there is no intact one.
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
    Check a report from a cluster, and return it.

    :raises ValueError: it is not a report.
    """
    if not isinstance(report, dict):
        raise ValueError(f"not a progress report: {report!r}"[:200])
    done, total, message = _number(report.get("done")), _number(report.get("total")), report.get("message")
    if not _is_number(done) or not (total is None or _is_number(total)):
        raise ValueError(f"not a progress report: {report!r}"[:200])
    return {"done": _short(done), "total": _short(total), "message": str(message or "")[:LONGEST_MESSAGE]}


def stored(report: dict[str, Any]) -> dict[str, Any]:
    """
    Return a report in a form that Airflow can store; :func:`checked` reads it again.

    Numbers of more than 64 bits become strings: PostgreSQL's JSONB has no floats and returns 1e40 as an integer, and
    Airflow 3 can't pass such an integer to the task that resumes.
    """
    large = [name for name in ("done", "total") if abs(report[name] or 0) > _LARGEST_INTEGER]
    return {**report, **{name: repr(report[name]) for name in large}}


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def describe(report: dict[str, Any]) -> str:
    """Format a report for the task log."""
    done, total, message = report["done"], report["total"], report["message"]
    share = f"/{total:.10g} ({100 * done / total:.0f} %)" if total else ""
    return f"Progress: {done:.10g}{share}{', ' if message else ''}{message}"


class ProgressLines:
    """
    Removes the reports from a job's log, and shows one at most every :data:`SHOW_INTERVAL` seconds.

    :param show: function that writes a line to the task log.
    :param clock: monotonic clock, in seconds.
    """

    def __init__(self, show: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock = clock
        self._shown_at = float("-inf")
        self._pending = False
        self.last: dict[str, Any] | None = None

    def take(self, line: str) -> str | None:
        """Return a line of the log without its reports; None if it contained nothing else."""
        rest, report = from_line(line)
        if report is None:
            return line
        self.last, self._pending = report, True
        if self._clock() - self._shown_at >= SHOW_INTERVAL:
            self.flush()
        return rest or None

    def flush(self) -> None:
        """Show the last report if it was not shown yet."""
        if self._pending and self.last is not None:
            self._show(describe(self.last))
            self._shown_at, self._pending = self._clock(), False
