"""The scripted server sends what its scripts say, and otherwise its default answer."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.testing import answers
from airflow_provider_rayjobs.testing.ray_server import ScriptedRay
from tests.unit.testing.http_client import JOBS, Client

if TYPE_CHECKING:
    from tests.support.private_ca import PrivateCA


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


def test_an_absent_server_resets_each_connection(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.absent_until = time.monotonic() + 1.0
    with pytest.raises(ConnectionResetError):
        client.ask("GET", JOBS)
    time.sleep(1.1)
    assert client.ask("GET", JOBS) == (200, "[]")
