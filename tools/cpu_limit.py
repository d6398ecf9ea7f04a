"""Runs a command, and fails if it and all its descendants used more CPU time than a limit.

python tools/cpu_limit.py MINUTES COMMAND ...
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys

from console import ToolError, run_main

_PR_SET_CHILD_SUBREAPER = 36


def run_counted(command: list[str]) -> tuple[int, float]:
    """Run a command; return its exit code, and the minutes of CPU that it and all its descendants used."""
    if sys.platform == "linux":
        # Descendants that outlive their parents become our children, so that their time is counted too.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    process = subprocess.Popen(command)
    try:
        code = None
        while code is None:
            pid, status = os.wait()
            if pid == process.pid:
                code = process.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return code, (used.ru_utime + used.ru_stime) / 60


def main(arguments: list[str]) -> int:
    """Run the command with the limit."""
    most, *command = arguments
    code, minutes = run_counted(command)
    print(f"\nUsed {minutes:.1f} minutes of CPU; the limit is {most}.")
    if not code and minutes > float(most):
        raise ToolError("The command used too much CPU. Make it cheaper, or raise the limit and say why.")
    return code


if __name__ == "__main__":
    run_main(main)
