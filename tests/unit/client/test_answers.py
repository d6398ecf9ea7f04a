"""What answers mean that no healthy head gives; what each supported Ray answers is held by ``test_samples``."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.client.answers import MOST_JSON_PARTS, decode_json, error_of, has_too_many_parts
from airflow_provider_rayjobs.client.exchange import Response
from tests.support import answers
from tests.support.flows import response

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.answers import Answer
    from tests.support.clients import Client
    from tests.support.scripted_server import ScriptedRay

JOB = "/api/jobs/a"
LOST = errors.RayClusterUnreachableError
#: From a Kubernetes API server.
NO_PROXY_RIGHT = (
    '{"kind":"Status","status":"Failure","message":"services \\"head-svc:8265\\" is forbidden: User \\"a\\" cannot '
    'create resource \\"services/proxy\\" in API group \\"\\" in the namespace \\"ray\\"","code":403}'
)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (answers.html(404), errors.RayProtocolError, "no such route.*check that the connection's host, port"),
        (answers.no_agent(), LOST, "HTTP 500: No available agent to submit job"),
        (answers.bad_gateway(502), LOST, "HTTP 502.*try again later"),
        (answers.bad_gateway(503), LOST, "HTTP 503.*try again later"),
        (answers.bad_gateway(504), LOST, "HTTP 504.*try again later"),
        (answers.too_many(), LOST, "HTTP 429.*try again later"),
        (answers.unauthorized(), errors.RayAuthError, "HTTP 401: this Ray cluster requires a token.*Missing"),
        (answers.html(403), errors.RayAuthError, "HTTP 403: the credentials were refused; check the token, login"),
        (
            answers.text(403, NO_PROXY_RIGHT),
            errors.RayAuthError,
            "HTTP 403.*the verb 'create' on 'services/proxy' there",
        ),
        (answers.too_large(), errors.RayRequestRefusedError, "HTTP 413: the request is too large.*104857600"),
        (answers.internal_error(), errors.RayAPIError, "HTTP 500.*Failed to look up actor"),
        (answers.html(500), errors.RayAPIError, "HTTP 500.*no explanation"),
        (answers.text(500, ""), errors.RayAPIError, "HTTP 500.*no explanation"),
        (
            answers.text(302, "").but(headers=(("Location", "https://sso.example/login"),)),
            errors.RayProtocolError,
            "redirect to https://sso.example/login.*check that the connection's host",
        ),
    ],
)
def test_each_refusal_has_its_error_and_one_line_that_says_what_to_check(
    answer: Answer, kind: type[Exception], words: str
) -> None:
    error = error_of(response(answer))
    assert type(error) is kind
    assert re.match("http://ray:8265: ", str(error))
    assert getattr(error, "address") == "http://ray:8265"  # noqa: B009 - each kind has one
    assert re.search(words, str(error))
    assert "\n" not in str(error)
    assert len(str(error)) < 800


def test_what_the_agent_refuses_and_the_head_wraps_is_a_refusal() -> None:
    text = (
        "Traceback (most recent call last):\nRuntimeError: Request failed with status code 400: Traceback (most "
        'recent call last):\n  File "x.py", line 1, in f\nTypeError: entrypoint_num_cpus must be a number.\n.\n'
    )
    error = error_of(Response(500, text, "http://ray:8265"))
    assert type(error) is errors.RayRequestRefusedError
    assert str(error).endswith("TypeError: entrypoint_num_cpus must be a number.")


@pytest.mark.parametrize("secret", ["job", "400", "already exists", "No available agent", "does not exist"])
def test_an_env_var_never_changes_what_an_answer_means(secret: str) -> None:
    wrapped = answers.text(500, "RuntimeError: Request failed with status code 400: TypeError: no")
    for answer in (answers.no_agent(), answers.already_exists("a"), answers.not_found("a"), wrapped):
        assert type(error_of(response(answer, secrets=(secret,)))) is type(error_of(response(answer)))


def test_a_secret_in_an_answer_is_not_shown_even_when_it_spans_lines() -> None:
    answer = answers.bad_request("ValueError: no good: line one\nline two")
    error = error_of(response(answer, secrets=("line one\nline two", "line one")))
    assert "line" not in str(error).partition("refused")[2]
    moved = answers.text(302, "").but(headers=(("Location", "https://sso/?t=tok-123"),))
    assert "tok-123" not in str(error_of(response(moved, secrets=("tok-123",))))


MANY = MOST_JSON_PARTS + 1


@pytest.mark.parametrize(
    "entrypoint",
    ["," * MANY, "[{" * MANY, '\\",[' * MANY, "\\" * 2 * MANY + "," * MANY, '"' * MANY + "[" * MANY],
    ids=["commas", "brackets", "escaped quotes", "backslashes", "quotes"],
)
def test_what_stands_in_a_string_is_no_part_of_an_answer(
    entrypoint: str, scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    details = {"type": "SUBMISSION", "status": "RUNNING", "submission_id": "a", "entrypoint": entrypoint}
    scripted_ray.script("GET", JOB, answers.as_json(details))
    assert connect(scripted_ray).run(verbs.get_job_info("a")).entrypoint == entrypoint


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([1] * MANY),
        json.dumps({str(number): "," for number in range(MANY)}),
        json.dumps([[]] * MANY),
        '["' + "[" * MANY + '"' + ",[]" * MANY + "]",
    ],
    ids=["items", "keys", "lists", "beside a string"],
)
def test_an_answer_of_too_many_parts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^more than 60,000 parts$"):
        decode_json(text)


@pytest.mark.parametrize("text", ['"' + "\\" * 1_000_001, '"\\' * 500_000, '"' + "," * 1_000_000])
def test_strings_without_end_are_passed_over_at_once(text: str) -> None:
    began = time.process_time()
    assert has_too_many_parts("," * MANY + text)
    assert not has_too_many_parts(text)
    assert time.process_time() - began < 1


def test_an_error_carries_what_the_cluster_said() -> None:
    error = error_of(response(answers.internal_error()))
    assert isinstance(error, errors.RayAPIError)
    assert (error.status, error.address) == (500, "http://ray:8265")
    assert error.reason
    assert str(error).endswith(error.reason)
