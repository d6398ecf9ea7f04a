"""The scripted server does what its scripts say, and by default what a head does."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.support import answers
from tests.support.scripted_server import ScriptedRay, Tail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.private_ca import PrivateCA

JOBS = "/api/jobs/"


class Client:
    """One connection, opened again when it broke."""

    def __init__(self, server: ScriptedRay) -> None:
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=5)

    def send(self, method: str, path: str, data: Any = None, **headers: str) -> http.client.HTTPResponse:
        body = data if data is None or isinstance(data, bytes) else json.dumps(data)
        try:
            self.connection.request(method, path, body, headers)
            return self.connection.getresponse()
        except OSError:
            self.connection.close()
            raise

    def ask(self, method: str, path: str, data: Any = None, **headers: str) -> tuple[int, str]:
        response = self.send(method, path, data, **headers)
        return response.status, response.read().decode()

    def job(self, submission_id: str) -> dict[str, Any]:
        status, text = self.ask("GET", JOBS + submission_id)
        assert status == 200
        details: dict[str, Any] = json.loads(text)
        return details


@pytest.fixture
def client(scripted_ray: ScriptedRay) -> Iterator[Client]:
    client = Client(scripted_ray)
    yield client
    client.connection.close()


async def tail(server: ScriptedRay, submission_id: str = "a") -> tuple[list[str], int | None]:
    """Read a job's stream to its end; return its messages and the code of its close."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/api/jobs/{submission_id}/logs/tail") as ws,
    ):
        return [message.data async for message in ws], ws.close_code


def test_a_job_goes_as_told(scripted_ray: ScriptedRay, client: Client) -> None:
    request = {"entrypoint": "true", "submission_id": "a", "metadata": {"k": "v"}}
    assert client.ask("POST", JOBS, request) == (200, '{"job_id": "a", "submission_id": "a"}')
    details = client.job("a")
    assert (details["status"], details["metadata"], details["end_time"]) == ("PENDING", {"k": "v"}, None)
    scripted_ray.set_status("a", "RUNNING")
    assert client.job("a")["status"] == "RUNNING"
    scripted_ray.set_status("a", "FAILED", driver_exit_code=3)
    details = client.job("a")
    assert (details["status"], details["driver_exit_code"]) == ("FAILED", 3)
    assert details["end_time"] >= details["start_time"]
    assert [one.json for one in scripted_ray.received_on("POST")] == [request]


def test_a_job_goes_by_the_clock(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.new_job_timeline = [(0.0, "RUNNING"), (0.15, "SUCCEEDED")]
    client.ask("POST", JOBS, {"entrypoint": "true", "submission_id": "a"})
    assert client.job("a")["status"] == "RUNNING"
    time.sleep(0.2)
    assert client.job("a")["status"] == "SUCCEEDED"


def test_a_job_goes_by_reads(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.new_job_reads = ["PENDING", "RUNNING", "SUCCEEDED"]
    client.ask("POST", JOBS, {"entrypoint": "true", "submission_id": "a"})
    seen = [client.job("a")["status"] for _ in range(4)]
    assert seen == ["PENDING", "RUNNING", "SUCCEEDED", "SUCCEEDED"]


def test_submissions_that_a_head_refuses(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    status, text = client.ask("POST", JOBS, {"entrypoint": "true", "submission_id": "a"})
    assert status == 500
    assert "Job with submission_id a already exists." in text
    scripted_ray.submit_fields -= {"entrypoint_label_selector"}
    assert client.ask("POST", JOBS, {"entrypoint": "true", "entrypoint_label_selector": {}})[0] == 400
    assert client.ask("POST", JOBS, {"entrypoint": "true", "metadata": {"k": 1}})[0] == 400
    assert client.ask("POST", JOBS, b"{")[0] == 400
    assert list(scripted_ray.jobs) == ["a"]


def test_unknown_jobs_and_routes(client: Client) -> None:
    for method, path in (
        ("GET", ""),
        ("GET", "/logs"),
        ("GET", "/logs/tail"),
        ("POST", "/stop"),
        ("DELETE", ""),
    ):
        assert client.ask(method, f"/api/jobs/x{path}") == (404, "Job x does not exist")
    assert client.ask("GET", "/nowhere")[0] == 404


def test_list_and_logs(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a")
    scripted_ray.append_log("a", ["one\n", "two\n"])
    scripted_ray.other_jobs = [{"type": "DRIVER", "job_id": "01000000", "submission_id": None}]
    listed = json.loads(client.ask("GET", JOBS)[1])
    assert [(one["type"], one["submission_id"]) for one in listed] == [("SUBMISSION", "a"), ("DRIVER", None)]
    assert client.ask("GET", "/api/jobs/a/logs") == (200, '{"logs": "one\\ntwo\\n"}')


def test_stop_and_delete(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = 0.15
    status, text = client.ask("DELETE", "/api/jobs/a")
    assert (status, "non-terminal state RUNNING" in text) == (500, True)
    assert client.ask("POST", "/api/jobs/a/stop") == (200, '{"stopped": true}')
    assert client.job("a")["status"] == "RUNNING"
    time.sleep(0.2)
    assert client.job("a")["status"] == "STOPPED"
    assert client.ask("POST", "/api/jobs/a/stop") == (200, '{"stopped": false}')
    assert client.ask("DELETE", "/api/jobs/a") == (200, '{"deleted": true}')
    assert client.ask("GET", "/api/jobs/a")[0] == 404


def test_a_stop_that_is_not_heeded(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = None
    assert client.ask("POST", "/api/jobs/a/stop") == (200, '{"stopped": true}')
    assert client.job("a")["status"] == "RUNNING"


def test_packages() -> None:
    with ScriptedRay(max_body=10) as server:
        client = Client(server)
        assert client.ask("GET", "/api/packages/gcs/p.zip") == (404, "Package gcs://p.zip does not exist")
        assert client.ask("PUT", "/api/packages/gcs/p.zip", b"0123456789")[0] == 200
        assert client.ask("GET", "/api/packages/gcs/p.zip")[0] == 200
        status, text = client.ask("PUT", "/api/packages/gcs/q.zip", b"01234567890")
        assert (status, "Maximum request body size 10 exceeded" in text) == (413, True)
        assert server.packages == {"p.zip": b"0123456789"}
        client.connection.close()


def test_a_restart_forgets_and_begins_a_new_session(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a")
    before = json.loads(client.ask("GET", "/api/version")[1])["session_name"]
    scripted_ray.restart()
    assert json.loads(client.ask("GET", "/api/version")[1])["session_name"] != before
    assert client.ask("GET", "/api/jobs/a")[0] == 404


def test_token() -> None:
    with ScriptedRay(token="t") as server:
        client = Client(server)
        assert client.ask("GET", "/api/version")[0] == 401
        assert client.ask("GET", "/api/version", Authorization="Bearer x")[0] == 403
        assert client.ask("GET", "/api/version", Authorization="Bearer t")[0] == 200
        assert client.ask("GET", "/api/version", **{"X-Ray-Authorization": "Bearer t"})[0] == 200
        client.connection.close()


def test_scripted_answers_come_first_and_in_order(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a")
    scripted_ray.script(
        "GET",
        "/api/jobs/a",
        answers.too_many("7"),
        answers.default(),
        answers.html(),
        answers.truncated_json(),
    )
    limited = client.send("GET", "/api/jobs/a")
    assert (limited.status, limited.headers["Retry-After"], limited.read()) == (
        429,
        "7",
        b"Too Many Requests",
    )
    assert client.job("a")["status"] == "RUNNING"
    page = client.send("GET", "/api/jobs/a")
    assert (page.status, page.headers["Content-Type"], b"<html>" in page.read()) == (200, "text/html", True)
    with pytest.raises(json.JSONDecodeError):
        client.job("a")
    assert client.job("a")["status"] == "RUNNING"


def test_scripted_answer_for_good(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.script(".*", ".*", answers.no_agent(), answers.bad_gateway(503), forever=True)
    assert [client.ask("GET", JOBS)[0] for _ in range(3)] == [500, 503, 503]
    scripted_ray.clear()
    assert client.ask("GET", JOBS) == (200, "[]")


def test_lost_answers(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.script("POST", JOBS, answers.drop(), answers.lost(), answers.bad_gateway().but(applies=True))
    with pytest.raises(ConnectionResetError):
        client.ask("POST", JOBS, {"entrypoint": "true", "submission_id": "nothing-done"})
    with pytest.raises(ConnectionResetError):
        client.ask("POST", JOBS, {"entrypoint": "true", "submission_id": "answer-lost"})
    assert client.ask("POST", JOBS, {"entrypoint": "true", "submission_id": "answer-replaced"})[0] == 502
    assert list(scripted_ray.jobs) == ["answer-lost", "answer-replaced"]


def test_cut_and_late_answers(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a")
    scripted_ray.script("GET", "/api/jobs/a", answers.default().but(cut_after=9), answers.default(delay=0.15))
    response = client.send("GET", "/api/jobs/a")
    assert response.status == 200
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert caught.value.partial == b'{"type": '
    client.connection.close()
    begin = time.monotonic()
    assert client.job("a")["status"] == "RUNNING"
    assert time.monotonic() - begin >= 0.15


def test_tail_ends_with_the_job(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.append_log("a", ["one\n", "two\n"])

    async def follow() -> tuple[list[str], int | None]:
        reading = asyncio.ensure_future(tail(scripted_ray))
        await asyncio.sleep(0.1)
        assert not reading.done()
        scripted_ray.append_log("a", ["three\n"])
        scripted_ray.set_status("a", "SUCCEEDED")
        return await reading

    assert asyncio.run(follow()) == (["one\n", "two\n", "three\n"], 1000)


def test_tail_ends_early_and_begins_anew(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.append_log("a", ["one\n", "two\n", "three\n"])
    scripted_ray.tails(Tail(after=1), Tail(after=2, code=1009), Tail(after=2, abort=True))
    assert asyncio.run(tail(scripted_ray)) == (["one\n"], 1000)
    assert asyncio.run(tail(scripted_ray)) == (["one\n", "two\n"], 1009)
    assert asyncio.run(tail(scripted_ray)) == (["one\n", "two\n"], 1006)


def test_tail_that_hangs_and_tail_that_is_refused(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.tails(Tail(hang=True))

    async def impatient() -> None:
        async with asyncio.timeout(0.2):
            await tail(scripted_ray)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    scripted_ray.script("GET", ".*/tail", answers.bad_gateway())
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        asyncio.run(tail(scripted_ray))
    assert caught.value.status == 502


def test_tls_with_a_private_authority(private_ca: PrivateCA) -> None:
    with ScriptedRay(tls=private_ca.server_context(require_client_cert=True)) as server:
        context = private_ca.client_context(with_client_cert=True)
        client = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=5)
        client.request("GET", "/api/version")
        assert client.getresponse().status == 200
        client.close()
        stranger = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=5)
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.request("GET", "/api/version")
        stranger.close()
    assert server.url == f"https://127.0.0.1:{server.port}"


def test_nothing_listens_after_the_end() -> None:
    with ScriptedRay() as server:
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port), timeout=1)
