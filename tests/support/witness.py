"""Asks a Ray cluster about its jobs, without the package under test."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


class Witness:
    """A client of the Jobs REST API that shares no code with the package, so that its results are independent.

    :param url: URL of the API.
    :param token: sent as a bearer token unless empty.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.token = token

    def request(self, method: str, path: str, body: object = None, timeout: float = 30.0) -> tuple[int, str]:
        """Send one request; return the status and text of the response, also for errors.

        :param body: sent as JSON unless None.
        :param timeout: seconds per socket operation.
        :raises OSError: if there is no response.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        # Without proxies from the environment.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(errors="replace")

    def submit(self, entrypoint: str, **fields: Any) -> str:
        """Submit a job with these request fields; return its submission id."""
        body = self._json("POST", "/api/jobs/", {"entrypoint": entrypoint, **fields})
        return str(body["submission_id"])

    def jobs(self) -> list[dict[str, Any]]:
        """Return the details of all submission jobs, in any order."""
        return [job for job in self._json("GET", "/api/jobs/") if job["type"] == "SUBMISSION"]

    def job(self, submission_id: str) -> dict[str, Any] | None:
        """Return the details of one job, or None if the head does not know it."""
        status, text = self.request("GET", f"/api/jobs/{submission_id}")
        if status == 404:
            return None
        if status != 200:
            raise RuntimeError(f"GET of job {submission_id}: {status} {text}")
        details: dict[str, Any] = json.loads(text)
        return details

    def wait_job(
        self, submission_id: str, timeout: float = 60.0, until: frozenset[str] | set[str] = TERMINAL
    ) -> dict[str, Any]:
        """Wait for one of these statuses; fail at once if the job ends in another one."""
        deadline = time.monotonic() + timeout
        while True:
            details = self.job(submission_id)
            if details and details["status"] in until:
                return details
            if (details and details["status"] in TERMINAL) or time.monotonic() > deadline:
                raise AssertionError(f"job {submission_id} did not become {sorted(until)}: {details}")
            time.sleep(0.1)

    def stop_job(self, submission_id: str) -> bool:
        """Ask a job to stop; return whether it was running."""
        return bool(self._json("POST", f"/api/jobs/{submission_id}/stop")["stopped"])

    def logs(self, submission_id: str) -> str:
        """Return all of a job's log."""
        return str(self._json("GET", f"/api/jobs/{submission_id}/logs")["logs"])

    def session_name(self) -> str:
        """Return the name of the head's session, which changes with every start."""
        return str(self._json("GET", "/api/version")["session_name"])

    def _json(self, method: str, path: str, body: object = None) -> Any:
        status, text = self.request(method, path, body)
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {text}")
        return json.loads(text)
