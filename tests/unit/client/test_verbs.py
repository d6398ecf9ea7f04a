"""The verbs: a submission that runs once whatever happens to its answer, and details of the job that was asked for."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.client import listing, log_files, verbs
from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.client.answers import error_of
from airflow_provider_rayjobs.client.submission import Submission
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError
from tests.support import answers, faults
from tests.support.clients import cluster_at, quick_sleep
from tests.support.faulty_proxy import FaultyProxy
from tests.support.flows import outcome, response

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.jobs import JobDetails
    from tests.support.answers import Answer
    from tests.support.clients import Client
    from tests.support.scripted_server import ScriptedRay

JOB = "/api/jobs/a"


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


def test_paths_are_quoted_and_never_another_route() -> None:
    assert verbs.job_path("a/b c") == "/api/jobs/a%2Fb%20c"
    for wrong in ("", ".", ".."):
        with pytest.raises(ValueError, match="must not be"):
            verbs.job_path(wrong)


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


# Stopping


def stop(server: ScriptedRay, patience: float = 5.0) -> JobDetails | None:
    async def main() -> JobDetails | None:
        transport = AiohttpTransport(cluster_at(server), sleep=quick_sleep)
        try:
            return await transport.run(verbs.stop_and_wait("a", patience=patience))
        finally:
            await transport.close()

    return asyncio.run(main())


def test_a_stop_is_confirmed(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = 0.1
    assert stop(scripted_ray).status == "STOPPED"
    assert len(scripted_ray.received_on("POST")) == 1
    assert stop(scripted_ray).status == "STOPPED"  # once more, of a job that has ended


def test_a_stop_is_waited_for_within_its_patience(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = None
    began = time.monotonic()
    assert stop(scripted_ray, patience=0.1).status == "RUNNING"
    assert time.monotonic() - began < 3


def test_a_stop_of_an_unknown_job_finds_none_and_one_without_contact_raises(scripted_ray: ScriptedRay) -> None:
    assert stop(scripted_ray) is None
    scripted_ray.script(".*", ".*", answers.bad_gateway(), forever=True)
    with pytest.raises(RayClusterUnreachableError):
        stop(scripted_ray)
