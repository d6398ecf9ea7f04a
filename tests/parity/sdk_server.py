"""Runs calls of Ray's own SDK in the Python that has Ray.

``python -m tests.parity.sdk_server`` reads one JSON object per line from stdin, ``{"case": ..., "here": {...}}`` or
``{"verb": ..., "arguments": [...]}``, and writes ``{"value": ...}`` or ``{"error": [...], "message": ...}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from ray.job_submission import JobSubmissionClient

from tests.parity.case import Here, answer, submit
from tests.parity.cases import CASES


async def collected(pieces: Any) -> str:
    """Return the whole output of a tail."""
    return "".join([piece async for piece in pieces])


def ask(address: str, verb: str, arguments: list[Any]) -> Any:
    """Call a method of the client; return its result in a form for JSON."""
    made = getattr(JobSubmissionClient(address), verb)(*arguments)
    if verb == "tail_job_logs":
        return asyncio.run(collected(made))
    if verb == "list_jobs":
        return [job.model_dump() for job in made]
    return made.model_dump() if verb == "get_job_info" else made


def serve(line: dict[str, Any]) -> dict[str, Any]:
    """Run one call."""
    if "verb" in line:
        return answer(lambda: ask(**line))
    here = Here(Path(line["folder"]), line["address"], line["submission_id"])
    return answer(lambda: submit(CASES[line["case"]], here, JobSubmissionClient))


def main() -> None:
    # Output of libraries must not be mixed with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(serve(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
