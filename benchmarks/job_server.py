"""
Runs the tests' scripted Ray head for the benchmark `triggerer`, in a process of its own.

    PYTHONPATH=. .envs/airflow-3.3/bin/python benchmarks/job_server.py

Its jobs begin and end as the benchmark asks. A request takes as long as on a real head (see `head`). Its first line of
output is its URL.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import head

from tests.support import answers
from tests.support.scripted_server import ScriptedRay

if TYPE_CHECKING:
    from aiohttp import web

    from airflow_provider_rayjobs.testing.http_server import Received
    from airflow_provider_rayjobs.testing.jobs import Job
    from tests.support.answers import Answer

#: Lines that each job prints at its beginning, and what it prints at its end.
LINES = 20
LAST_LINE = "the last line"


class JobServer(ScriptedRay):
    """A scripted head whose requests cost what they cost on a real one; it answers one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.account = head.Account()
        self.stopped: list[float] = []
        self._received: Any = deque(maxlen=0)  # a long run must not keep all requests

    def default_answer(self, received: Received) -> Answer:
        """Do what a head does, or what the benchmark asks for."""
        match received.path:
            case "/bench":
                return answers.as_json({**vars(self.account), "stopped": self.stopped})
            case "/bench/begin":
                self._begin(**received.json)
                return answers.as_json({})
            case "/bench/forget":
                names = [name for name in self.jobs if name.startswith(received.json["prefix"])]
                for name in names:
                    del self.jobs[name]
                self.stopped.clear()
                return answers.as_json({"forgotten": len(names)})
        if received.path.startswith("/api/v0/actors"):
            return answers.as_json({"data": {"result": {"total": len(self.jobs), "result": []}}})
        return super().default_answer(received)

    def _begin(self, prefix: str, ends: list[float | None], env_vars: list[dict[str, str]]) -> None:
        """
        Add jobs that run.

        :param prefix: of their submission ids, before their number.
        :param ends: the end of each, in Unix seconds; None if it never ends.
        :param env_vars: of each; it prints their values.
        """
        loop = asyncio.get_running_loop()
        for number, (end, secret) in enumerate(zip(ends, env_vars, strict=True)):
            job = self.add_job(f"{prefix}-{number}", runtime_env={"env_vars": secret})
            told = "".join(f"{name} is {value}\n" for name, value in secret.items())
            job.log.append("".join(f"line {line}\n" for line in range(LINES)) + told)
            if end is not None:
                loop.call_later(end - time.time(), self._finish, job)

    def _finish(self, job: Job) -> None:
        if not job.ended:
            job.log.append(f"{LAST_LINE}\n")
            job.become("SUCCEEDED")

    def _stop(self, job: Job) -> bool:
        self.stopped.append(time.time())
        return super()._stop(job)

    async def _respond(self, request: web.Request, received: Received, answer: Answer) -> web.StreamResponse:
        if received.path.startswith("/bench") or received.path.endswith("/tail"):
            return await super()._respond(request, received, answer)
        wait = self.account.enter(*self._cost(received))
        response = await super()._respond(request, received, answer)
        await asyncio.sleep(wait)
        return response

    def _cost(self, received: Received) -> tuple[str, float]:
        if received.path == "/api/jobs/" and received.method == "GET":
            return "list", head.COST_PER_JOB_LISTED * len(self.jobs)
        return received.method, head.COST["look"]


def main() -> None:
    """Serve until the parent closes the standard input."""
    with JobServer() as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
