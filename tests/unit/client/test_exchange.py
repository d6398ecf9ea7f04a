"""Requests and answers: none of them shows a secret."""

from __future__ import annotations

from airflow_provider_rayjobs.client.exchange import Request, Response


def test_a_request_shows_neither_its_body_nor_its_secrets() -> None:
    request = Request("POST", "/api/jobs/", json={"env": "hush-hush"}, secrets=("hush-hush",))
    assert repr(request).startswith("Request(method='POST', path='/api/jobs/'")
    assert "hush" not in repr(request)


def test_a_response_shows_neither_its_text_nor_its_secrets() -> None:
    response = Response(200, "hush-hush", "http://ray:8265", secrets=("hush-hush",))
    assert repr(response).startswith("Response(status=200, address='http://ray:8265'")
    assert "hush" not in repr(response)


def test_what_a_server_said_is_shown_without_secrets_and_without_logins() -> None:
    response = Response(500, "", "http://ray:8265", secrets=("hush-hush", "line one\nline two"))
    said = "no hush-hush, no line one\nline two, no http://me:pass@proxy:3128/"
    assert response.public(said) == "no ***, no ***, no http://***@proxy:3128/"
    assert Response(500, "", "http://ray:8265").public("hush-hush") == "hush-hush"
