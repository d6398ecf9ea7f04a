"""
What answers mean that no healthy head gives, and a submission that runs once whatever happens to its answer.

What each supported Ray answers is held by ``test_samples``.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.client import ids as ids_module
from airflow_provider_rayjobs.client import listing, log_files, verbs
from airflow_provider_rayjobs.client.answers import MOST_JSON_PARTS, decode_json, error_of, has_too_many_parts
from airflow_provider_rayjobs.client.exchange import Response
from airflow_provider_rayjobs.client.submission import Submission
from airflow_provider_rayjobs.jobs import LONGEST_MESSAGE, LONGEST_NAME, LONGEST_STATUS, JobDetails, JobStatus
from tests.support import answers, faults
from tests.support.faulty_proxy import FaultyProxy
from tests.support.flows import outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.answers import Answer
    from tests.support.clients import Client
    from tests.support.scripted_server import ScriptedRay

JOB = "/api/jobs/a"
LOST = errors.RayClusterUnreachableError


def response(answer: Answer, **fields: Any) -> Response:
    location = dict(answer.headers).get("Location", "")
    return Response(answer.status, answer.body.decode(), "http://ray:8265", answer.content_type, location, **fields)


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


def test_an_unknown_status_keeps_its_text_and_is_not_terminal() -> None:
    first, second = JobStatus("SUSPENDED"), JobStatus("SUSPENDED")
    assert (str(first), first.is_terminal, first.is_known, first == second) == ("SUSPENDED", False, False, True)
    assert JobStatus.FAILED.is_known
    assert [status.value for status in JobStatus] == ["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]


def test_only_three_statuses_are_terminal() -> None:
    assert {status for status in JobStatus if status.is_terminal} == {"STOPPED", "SUCCEEDED", "FAILED"}


def test_details_drop_unknown_fields_and_take_none_for_absent() -> None:
    job = JobDetails.from_json({"type": "SUBMISSION", "status": "RUNNING", "metadata": None, "of_a_later_ray": 1})
    assert (job.status, dict(job.metadata), job.message) == (JobStatus.RUNNING, {}, None)


@pytest.mark.parametrize(
    "status", ["", "RUN\nNING", "\x1b[31mRUNNING", "\0", "X" * (LONGEST_STATUS + 1), "L\xc4UFT", "\ud800"]
)
def test_a_status_is_a_short_text_that_can_be_shown(status: str) -> None:
    with pytest.raises(ValueError, match="is not a valid JobStatus"):
        JobStatus(status)
    with pytest.raises(ValueError, match="a job whose status is not a string of 1 to 64 printable ASCII characters"):
        JobDetails.from_json({"type": "SUBMISSION", "status": status})
    longest = "X" * LONGEST_STATUS
    assert JobDetails.from_json({"type": "SUBMISSION", "status": longest}).status == longest


def test_a_message_and_the_type_of_an_error_are_cut_to_their_longest() -> None:
    def details(message: str, error_type: str = "E") -> JobDetails:
        return JobDetails.from_json(
            {"type": "SUBMISSION", "status": "FAILED", "message": message, "error_type": error_type}
        )

    whole = "m" * LONGEST_MESSAGE
    assert details(whole).message == whole
    message = details("first line\n" + "m" * 2**20 + "\nlast line").message or ""
    assert message.startswith("first line\nmmm")
    assert message.endswith("mmm\nlast line")
    assert message.count("\n… (cut) …\n") == 1
    assert len(message) - len("\n… (cut) …\n") == LONGEST_MESSAGE
    assert details("", "E" * (LONGEST_NAME + 1)).error_type == "E" * LONGEST_NAME


def test_no_text_of_a_job_holds_what_can_not_be_stored() -> None:
    nasty, safe = "a\0b\ud800", r"a\x00b\ud800"
    texts = (
        *("type", "submission_id", "job_id", "entrypoint", "message", "error_type"),
        *("driver_agent_http_address", "driver_node_id"),
    )
    objects = {"runtime_env": {nasty: [nasty, {"k": {nasty: nasty}}]}, "driver_info": {nasty: {"id": nasty}}}
    given = {**dict.fromkeys(texts, nasty), **objects, "metadata": {nasty: nasty}, "status": "FAILED"}
    job = JobDetails.from_json(json.loads(json.dumps(given)))
    assert {name: getattr(job, name) for name in texts} == dict.fromkeys(texts, safe)
    assert job.metadata == {safe: safe}
    assert job.runtime_env == {safe: [safe, {"k": {safe: safe}}]}
    assert job.driver_info == {safe: {"id": safe}}
    assert set(given) == {one.name for one in fields(JobDetails)} - {"start_time", "end_time", "driver_exit_code"}


@pytest.mark.parametrize(
    ("job_id", "found"),
    [
        ("02000000", True),
        ("0200000a", True),
        ("0200000", False),
        ("020000000", False),
        ("0200000A", False),
        ("evil", False),
    ],
)
def test_a_job_is_found_by_rays_own_id_only_where_that_is_one(
    job_id: str, found: bool, scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script(
        "GET", f"/api/jobs/{job_id}", answers.as_json({"type": "DRIVER", "status": "RUNNING", "job_id": job_id})
    )
    client = connect(scripted_ray)
    if found:
        assert client.run(verbs.get_job_info(job_id)).job_id == job_id
    else:
        with pytest.raises(errors.RayProtocolError, match=f"the details of another job \\('{job_id}'\\)"):
            client.run(verbs.get_job_info(job_id))


@pytest.mark.parametrize("data", [{"type": "SUBMISSION"}, {"status": "RUNNING"}, {"type": "S", "status": ""}])
def test_details_without_type_or_status_are_no_answer_of_ray(
    data: dict[str, str], scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script("GET", JOB, answers.as_json(data))
    with pytest.raises(errors.RayProtocolError, match="check that the connection's host, port"):
        connect(scripted_ray).run(verbs.get_job_info("a"))


@pytest.mark.parametrize(
    ("flow", "answer"),
    [
        (listing.list_jobs, answers.as_json("x")),
        (listing.list_jobs, answers.as_json([1])),
        (listing.list_jobs, answers.as_json({})),
        (listing.list_jobs, answers.as_json([{}])),
        (verbs.get_version, answers.as_json({"version": "4"})),
        (verbs.get_version, answers.as_json([])),
        (lambda: log_files.get_job_logs("a"), answers.as_json({"logs": None})),
        (lambda: verbs.get_job_info("a"), answers.html()),
        (lambda: verbs.get_job_info("a"), answers.truncated_json()),
        (lambda: verbs.stop_job("a"), answers.as_json(True)),
    ],
)
def test_an_answer_of_another_form_is_a_protocol_error(flow: Callable[[], Any], answer: Answer) -> None:
    with pytest.raises(
        errors.RayProtocolError, match=r"http://ray:8265: .*check that the connection's host, port and path prefix"
    ):
        outcome(flow(), answer.body)


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


@pytest.mark.parametrize("wrong", ["a/b", "a b", "", ".", "..", "ä", "a\n"])
def test_an_id_that_no_route_finds_again_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="submission_id"):
        ids_module.check_submission_id(wrong)


def test_an_id_that_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="submission_id must be a string, not 5"):
        ids_module.check_submission_id(5)  # type: ignore[arg-type]


def test_paths_are_quoted_and_never_another_route() -> None:
    assert verbs.job_path("a/b c") == "/api/jobs/a%2Fb%20c"
    for wrong in ("", ".", ".."):
        with pytest.raises(ValueError, match="must not be"):
            verbs.job_path(wrong)


def test_fields_that_are_not_set_are_not_sent() -> None:
    small = Submission("true", "a").request().json
    assert small == {"entrypoint": "true", "submission_id": "a", "metadata": {}}
    whole: dict[str, Any] = {
        "entrypoint": "true",
        "submission_id": "a",
        "runtime_env": {"pip": ["x"]},
        "metadata": {"k": "v"},
        "entrypoint_num_cpus": 0,
        "entrypoint_num_gpus": 0.5,
        "entrypoint_memory": 1,
        "entrypoint_resources": {"r": 1.0},
        "entrypoint_label_selector": {"zone": "a"},
    }
    assert json.loads(json.dumps(Submission(**whole).request().json)) == whole


def test_env_vars_show_in_no_repr() -> None:
    submission = Submission("true", "a", runtime_env={"env_vars": {"K": "hush-hush"}})
    assert "hush-hush" not in repr(submission) + repr(submission.request())
    assert submission.request().secrets == ("hush-hush",)


# Submissions


def submit(client: Client, patience: float = 60.0, **fields: Any) -> str:
    submission = Submission("true", "a", metadata={"key": "mine"}, **fields)
    return client.run(
        verbs.submit_job(
            submission, lambda job: job.metadata.get("key") == "mine", patience=patience, clock=client.time.clock
        )
    )


def exchange(server: ScriptedRay) -> list[str]:
    """Return the methods of all requests about the job; nothing else may have been asked."""
    assert {one.path for one in server.received} <= {"/api/jobs/", JOB}
    return [one.method for one in server.received]


def assert_looked_up_between_submissions(methods: list[str]) -> None:
    assert methods[0] == "POST"
    assert not re.search("POST POST", " ".join(methods)), methods


UNDONE = {
    "connection reset": answers.drop(),
    "no agent": answers.no_agent(),
    "429": answers.too_many(),
    "502": answers.bad_gateway(502),
    "503": answers.bad_gateway(503),
    "504": answers.bad_gateway(504),
    "a web page": answers.html(),
    "truncated JSON": answers.truncated_json(),
    "internal error": answers.internal_error(),
    "no submission_id": answers.as_json({}),
}
DONE = {f"{name}, yet accepted": answer.but(applies=True) for name, answer in UNDONE.items() if not answer.drop} | {
    "answer lost": answers.lost(),
    "answer cut": answers.default().but(cut_after=9),
    "answer late": answers.default(delay=2.0),
}


@pytest.mark.parametrize("answer", UNDONE.values(), ids=UNDONE)
def test_a_submission_that_was_not_accepted_is_looked_up_then_sent_again(
    answer: Answer, scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script("POST", "/api/jobs/", answer)
    assert submit(connect(scripted_ray)) == "a"
    assert exchange(scripted_ray) == ["POST", "GET", "POST"]
    assert list(scripted_ray.jobs) == ["a"]


@pytest.mark.parametrize("answer", UNDONE.values(), ids=UNDONE)
def test_only_an_error_of_the_cluster_that_comes_back_word_for_word_is_final(
    answer: Answer, scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script("POST", "/api/jobs/", answer, answer)
    doubt = isinstance(error_of(response(answer)), errors.RayClusterUnreachableError) or answer.drop
    if doubt:
        assert submit(connect(scripted_ray)) == "a"
        assert exchange(scripted_ray) == ["POST", "GET", "POST", "GET", "POST"]
    else:
        with pytest.raises(errors.RayAPIError):
            submit(connect(scripted_ray))
        assert exchange(scripted_ray) == ["POST", "GET", "POST", "GET"]
        assert scripted_ray.jobs == {}


def test_an_error_that_changes_is_no_final_one(scripted_ray: ScriptedRay, connect: Callable[..., Client]) -> None:
    scripted_ray.script("POST", "/api/jobs/", *(answers.text(500, f"ValueError: {n}") for n in range(4)))
    assert submit(connect(scripted_ray)) == "a"


def test_an_error_while_the_id_can_not_be_looked_up_is_no_final_one(
    scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script("POST", "/api/jobs/", answers.internal_error(), answers.internal_error())
    scripted_ray.script("GET", JOB, *[answers.internal_error()] * 2)
    assert submit(connect(scripted_ray)) == "a"


@pytest.mark.parametrize("other", [{"submission_id": "$(touch x);evil"}, {"submission_id": ".."}, {}, {"job_id": 1}])
def test_another_submission_id_in_the_answer_is_not_believed(
    other: dict[str, Any], scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script("POST", "/api/jobs/", answers.as_json(other).but(applies=True))
    assert submit(connect(scripted_ray)) == "a"
    assert exchange(scripted_ray) == ["POST", "GET"]


@pytest.mark.parametrize("answer", DONE.values(), ids=DONE)
def test_a_submission_that_was_accepted_is_found_and_not_sent_again(
    answer: Answer, scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script("POST", "/api/jobs/", answer)
    assert submit(connect(scripted_ray, read_timeout=0.3)) == "a"
    assert exchange(scripted_ray) == ["POST", "GET"]
    assert list(scripted_ray.jobs) == ["a"]


@pytest.mark.parametrize(
    "fault",
    [faults.refuse(), faults.cut_request_after(20), faults.swallow_response(), faults.cut_response_after(30)],
    ids=lambda fault: fault.kind,
)
def test_a_connection_cut_anywhere_leaves_one_job(
    fault: faults.Fault, scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    with FaultyProxy(scripted_ray.host, scripted_ray.port) as proxy:
        proxy.on(fault, "POST", times=2)
        assert submit(connect(proxy)) == "a"
        assert_looked_up_between_submissions([one.method for one in proxy.requests])
    assert list(scripted_ray.jobs) == ["a"]


def test_a_job_accepted_while_nothing_could_be_asked_is_adopted_by_its_key(
    scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script("POST", "/api/jobs/", answers.lost())
    scripted_ray.script("GET", JOB, *[answers.bad_gateway()] * 5)
    assert submit(connect(scripted_ray)) == "a"
    # The look-up failed five times; the next POST is told "already exists", and that job is ours.
    assert exchange(scripted_ray) == ["POST", *["GET"] * 5, "POST", "GET"]
    assert list(scripted_ray.jobs) == ["a"]


@pytest.mark.parametrize("first", [answers.default(), answers.bad_gateway()], ids=["at once", "after a doubt"])
def test_a_strangers_job_is_never_adopted(
    first: Answer, scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.add_job("a", metadata={"key": "theirs"})
    scripted_ray.script("POST", "/api/jobs/", first)
    with pytest.raises(errors.RayJobExistsError, match=r"'a' already belongs to another job.*RUNNING") as caught:
        submit(client := connect(scripted_ray))
    assert str(caught.value).startswith(scripted_ray.url + ": ")
    assert exchange(scripted_ray) == ["POST", "GET"]
    assert len(client.time.slept) == (0 if first.default else 1)  # what exists is known at once


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (answers.bad_request("TypeError: unexpected keyword argument"), errors.RayRequestRefusedError),
        (answers.unauthorized(), errors.RayAuthError),
        (answers.forbidden(), errors.RayAuthError),
    ],
)
def test_a_refused_submission_is_not_repeated(
    answer: Answer, kind: type[Exception], scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script("POST", "/api/jobs/", answer, forever=True)
    with pytest.raises(kind):
        submit(connect(scripted_ray))
    assert exchange(scripted_ray) == ["POST"]


def test_a_field_that_an_older_ray_does_not_know_is_named(
    scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.submit_fields -= {"entrypoint_label_selector"}
    with pytest.raises(errors.RayRequestRefusedError, match="entrypoint_label_selector"):
        submit(connect(scripted_ray), entrypoint_label_selector={"zone": "a"})
    assert submit(connect(scripted_ray)) == "a"


def test_a_submission_in_doubt_gives_up_when_its_patience_ends(
    scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script(".*", ".*", answers.bad_gateway(), forever=True)
    client = connect(scripted_ray)
    with pytest.raises(errors.RayClusterUnreachableError, match=r"HTTP 502.*; gave up the submission after 1\d\d s"):
        submit(client, patience=100.0)
    waited = client.time.now - 1000.0
    assert 100.0 < waited < 130.0
    assert len(scripted_ray.received_on("POST")) < 15
    assert_looked_up_between_submissions(exchange(scripted_ray))


def test_a_submission_that_never_left_gives_up_when_the_look_up_does(connect: Callable[..., Client]) -> None:
    client = connect("http://127.0.0.1:9")
    with pytest.raises(errors.RayClusterUnreachableError, match="connection refused"):
        submit(client, patience=600.0)
    assert 4.0 < client.time.now - 1000.0 < 7.0


def test_an_id_that_exists_and_cannot_be_read_is_asked_for_with_pauses(
    scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    scripted_ray.script("POST", "/api/jobs/", *[answers.already_exists("a")] * 40, answers.unauthorized())
    with pytest.raises(errors.RayJobExistsError, match="already exists"):
        submit(connect(scripted_ray), patience=60.0)
    assert len(scripted_ray.received_on("POST")) < 15


# Whose details an answer holds


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ("a", {"submission_id": "b"}),
        ("a", {"submission_id": None}),
        ("a", {"submission_id": "b", "job_id": "a"}),
        ("a", {"submission_id": "$(touch x)", "job_id": "a"}),
        ("a", {"submission_id": "a/../b"}),
        ("a", {"submission_id": "A"}),
        ("01000000", {"submission_id": "b", "job_id": "02000000"}),
        ("0100000G", {"submission_id": "b", "job_id": "0100000G"}),
    ],
)
def test_details_of_another_job_are_never_taken_for_those_that_were_asked_for(
    asked: str, ids: dict[str, Any], scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    found = answers.as_json({"type": "SUBMISSION", "status": "SUCCEEDED", **ids})
    scripted_ray.script("GET", f"/api/jobs/{asked}", found, forever=True)
    with pytest.raises(errors.RayProtocolError, match="the details of another job"):
        connect(scripted_ray).run(verbs.get_job_info(asked))


@pytest.mark.parametrize("submission_id", [None, "b"])
def test_a_job_is_found_by_rays_own_id_of_it(
    submission_id: str | None, scripted_ray: ScriptedRay, connect: Callable[..., Client]
) -> None:
    found = {"type": "DRIVER", "status": "RUNNING", "job_id": "0a000000", "submission_id": submission_id}
    scripted_ray.script("GET", "/api/jobs/0a000000", answers.as_json(found))
    assert connect(scripted_ray).run(verbs.get_job_info("0a000000")).submission_id == submission_id
