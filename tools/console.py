"""Output, errors and signals of the tools."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ToolError(Exception):
    """A step failed. The message is shown to the user, and says what to do."""


@contextmanager
def step(text: str) -> Iterator[None]:
    """Print what a silent step does, and on the same line how long it took."""
    print(f"{text} ...", end=" ", flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"failed after {time.monotonic() - start:.1f} s", flush=True)
        raise
    print(f"{time.monotonic() - start:.1f} s", flush=True)


def tail(log: Path, lines: int = 30) -> str:
    """Return the end of a log, indented."""
    text = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"    {line}" for line in text[-lines:])


def ignore_signals() -> None:
    """Ignore signals from now on: a second Ctrl-C must not interrupt the clean-up after the first."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def run_main(main: Callable[[list[str]], int]) -> None:
    """Run a tool's main function; turn its errors and signals into a message and an exit code."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        ignore_signals()
        # An exception, because `finally` blocks must stop what the tool started.
        raise SystemExit(128 + number)

    for number in SIGNALS:
        signal.signal(number, on_signal)
    try:
        code = main(sys.argv[1:])
    except ToolError as error:
        print(f"\n{error}", file=sys.stderr)
        code = 1
    sys.exit(code)
