"""The side of Ray's own SDK: answers calls, a line of JSON each, in the Python that has Ray.

``python -m tests.parity.sdk_server`` reads ``{"case": ..., "here": {...}}`` or ``{"verb": ..., "arguments": [...]}``
from its standard input, and writes ``{"value": ...}`` or ``{"error": [...], "message": ...}``.
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
    """Return a tail in one text."""
    return "".join([piece async for piece in pieces])


def ask(address: str, verb: str, arguments: list[Any]) -> Any:
    """Call a verb of the client; return what it gave as JSON can say it."""
    made = getattr(JobSubmissionClient(address), verb)(*arguments)
    if verb == "tail_job_logs":
        return asyncio.run(collected(made))
    if verb == "list_jobs":
        return [job.model_dump() for job in made]
    return made.model_dump() if verb == "get_job_info" else made


def serve(line: dict[str, Any]) -> dict[str, Any]:
    """Answer one call."""
    if "verb" in line:
        return answer(lambda: ask(**line))
    here = Here(Path(line["folder"]), line["address"], line["submission_id"])
    return answer(lambda: submit(CASES[line["case"]], here, JobSubmissionClient))


def main() -> None:
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(serve(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
