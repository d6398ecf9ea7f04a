"""Ray's messages about jobs."""

from __future__ import annotations

#: Ray writes this between the error of a failed job and up to 20,000 characters of its output.
LOGS_FOLLOW = ", last available logs"


def first_and_last_line(message: str) -> str:
    """Return the first and the last line of a message. For a failed job these are Ray's summary and the error."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) < 2:
        return "".join(lines)
    return f"{lines[0].partition(LOGS_FOLLOW)[0]} … {lines[-1]}"
