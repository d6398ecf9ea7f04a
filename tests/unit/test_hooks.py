"""The hooks: Ray's verbs and argument names, the same results from both, over an Airflow connection."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.hooks import RayJobAsyncHook, RayJobHook
from airflow_provider_rayjobs.jobs import JobStatus
from tests.support import answers
from tests.support.scripted_server import ScriptedRay, Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Of ray.job_submission.JobSubmissionClient 2.60, with `submission_id` for `job_id`, and without its old alias.
ARGUMENTS = {
    "submit_job": [
        "entrypoint",
        "runtime_env",
        "metadata",
        "submission_id",
        "entrypoint_num_cpus",
        "entrypoint_num_gpus",
        "entrypoint_memory",
        "entrypoint_resources",
        "entrypoint_label_selector",
    ],
    "stop_job": ["submission_id"],
    "delete_job": ["submission_id"],
    "get_job_info": ["submission_id"],
    "get_job_status": ["submission_id"],
    "get_job_logs": ["submission_id"],
    "tail_job_logs": ["submission_id"],
    "list_jobs": [],
    "get_version": [],
    "get_serve_details": [],  # of Ray's ServeSubmissionClient, like the next one
    "deploy_applications": ["config"],
    "get_address": [],
}

JOB: dict[str, Any] = {
    "entrypoint": "python x.py",
    "runtime_env": {"env_vars": {"K": "v"}},
    "metadata": {"owner": "me"},
    "submission_id": "a",
    "entrypoint_num_cpus": 0.5,
    "entrypoint_num_gpus": 0,
    "entrypoint_memory": 1024,
    "entrypoint_resources": {"TPU": 1},
    "entrypoint_label_selector": {"zone": "a"},
}


class AsyncCaller:
    """Calls the verbs of the asynchronous hook as those of the other one are called."""

    def __init__(self) -> None:
        self.hook = RayJobAsyncHook("ray_x")
        self.runner = asyncio.Runner()

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made = getattr(self.hook, verb)(*args, **kwargs)
            if inspect.isasyncgen(made):
                return self.runner.run(_collected(made))
            return self.runner.run(made)

        return call

    def finish(self) -> None:
        self.runner.run(self.hook.close())
        self.runner.close()


async def _collected(pieces: Any) -> list[str]:
    return [piece async for piece in pieces]


@pytest.fixture
def server(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> ScriptedRay:
    """A server that the connection "ray_x" names."""
    say(monkeypatch, scripted_ray)
    monkeypatch.setattr(verbs, "SUBMIT_GRACE", (0.01,))
    return scripted_ray


def say(monkeypatch: pytest.MonkeyPatch, server: ScriptedRay, **extra: Any) -> None:
    connection = {"conn_type": "ray_jobs", "host": server.url, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))


@pytest.fixture(params=["sync", "async"])
def hook(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Either hook, called alike; it reads the connection at its first request."""
    if request.param == "sync":
        made = RayJobHook("ray_x")
        yield made
        made.close()
    else:
        caller = AsyncCaller()
        yield caller
        caller.finish()


# Surface


@pytest.mark.parametrize("verb", ARGUMENTS)
def test_argument_names_are_those_of_rays_client(verb: str) -> None:
    taken = [name for name in inspect.signature(getattr(RayJobHook, verb)).parameters if name != "self"]
    assert set(taken) - {"submission_key"} == set(ARGUMENTS[verb])
    if verb != "submit_job":  # which takes its own by keyword, and is tested with all of them
        theirs = [name for name in inspect.signature(getattr(RayJobAsyncHook, verb)).parameters if name != "self"]
        assert theirs == taken


def test_submissions_take_keywords_only_as_rays_client_does() -> None:
    for kind in (RayJobHook, RayJobAsyncHook):
        parameters = list(inspect.signature(kind.submit_job).parameters.values())[1:]
        assert {one.kind for one in parameters} <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


def test_making_a_hook_reads_nothing() -> None:
    assert RayJobHook("no_such_connection").ray_conn_id == "no_such_connection"
    assert RayJobAsyncHook("no_such_connection").ray_conn_id == "no_such_connection"
    assert (RayJobHook().ray_conn_id, RayJobAsyncHook().ray_conn_id) == ("ray_default", "ray_default")
    assert (RayJobHook.conn_type, RayJobHook.conn_name_attr) == ("ray_jobs", "ray_conn_id")


# Verbs


def test_a_job_from_its_submission_to_its_deletion(server: ScriptedRay, hook: Any) -> None:
    assert hook.submit_job(**JOB) == "a"
    (posted,) = server.received_on("POST")
    sent = posted.json
    assert re.fullmatch("[0-9a-f]{16}", sent["metadata"].pop(keys.SUBMISSION))
    assert json.loads(sent["metadata"].pop(keys.RESOURCES)) == {"CPU": 0.5, "memory": 1024, "TPU": 1}
    assert sent == JOB
    assert hook.get_job_status("a") is JobStatus.PENDING
    server.set_status("a", "RUNNING")
    server.append_log("a", ["one\n", "two\n"])
    assert hook.get_job_logs("a") == "one\ntwo\n"
    details = hook.get_job_info("a")
    assert (details.submission_id, details.status, details.entrypoint) == ("a", "RUNNING", "python x.py")
    assert details.metadata["owner"] == "me"
    assert [job.submission_id for job in hook.list_jobs()] == ["a"]
    with pytest.raises(errors.RayAPIError, match="non-terminal state RUNNING"):
        hook.delete_job("a")
    assert hook.stop_job("a") is True
    assert hook.stop_job("a") is False
    assert list(hook.tail_job_logs("a")) == ["one\n", "two\n"]
    assert hook.delete_job("a") is True
    for verb in ("get_job_info", "get_job_status", "get_job_logs", "stop_job", "delete_job"):
        with pytest.raises(errors.RayJobNotFoundError, match="Job a does not exist"):
            getattr(hook, verb)("a")
    with pytest.raises(errors.RayJobNotFoundError):
        list(hook.tail_job_logs("a"))


def test_version_and_address(server: ScriptedRay, hook: Any) -> None:
    assert hook.get_version() == "2.60.0"
    assert hook.get_version_info().session_name == server.session_name
    assert hook.get_address() == server.url


def test_a_list_of_words_is_quoted_for_the_shell(server: ScriptedRay, hook: Any) -> None:
    hook.submit_job(entrypoint=["python", "my file.py", "--x=$HOME; rm", ""], submission_id="a")
    assert server.received_on("POST")[0].json["entrypoint"] == "python 'my file.py' '--x=$HOME; rm' ''"


def test_a_submission_without_an_id_gets_a_random_one(server: ScriptedRay, hook: Any) -> None:
    ids = {hook.submit_job(entrypoint="true") for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("raysubmit_[A-Za-z0-9]{16}", made) for made in ids)
    assert set(server.jobs) == ids


def test_only_the_fields_that_are_given_are_sent(server: ScriptedRay, hook: Any) -> None:
    server.submit_fields = frozenset({"entrypoint", "submission_id", "metadata"})  # as of an old Ray
    hook.submit_job(entrypoint="true", submission_id="a")
    assert set(server.received_on("POST")[0].json) == server.submit_fields


def test_the_connections_metadata_is_laid_over_the_jobs_and_the_providers_key_over_both(
    server: ScriptedRay, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, server, metadata={"owner": "connection", "team": "t"})
    metadata = {"owner": "job", "mine": "m", keys.SUBMISSION: "forged"}
    hook.submit_job(entrypoint="true", metadata=metadata, submission_key="k")
    sent = server.received_on("POST")[0].json["metadata"]
    assert sent == {"owner": "connection", "team": "t", "mine": "m", keys.SUBMISSION: "k"}
    assert metadata["owner"] == "job"


def test_a_runtime_env_that_is_no_dict_is_named(server: ScriptedRay, hook: Any) -> None:
    with pytest.raises(TypeError, match="runtime_env must be a dict, not list"):
        hook.submit_job(entrypoint="x", runtime_env=["pip"])
    assert not server.received_on("POST")


def test_the_same_key_adopts_its_job_and_another_does_not(server: ScriptedRay, hook: Any) -> None:
    for _ in range(2):
        assert hook.submit_job(entrypoint="true", submission_id="a", submission_key="k") == "a"
    assert list(server.jobs) == ["a"]
    for key in ("other", None):
        with pytest.raises(errors.RayJobExistsError, match="'a' already belongs to another job"):
            hook.submit_job(entrypoint="true", submission_id="a", submission_key=key)


def test_a_lost_answer_leaves_one_job(server: ScriptedRay, hook: Any) -> None:
    server.script("POST", "/api/jobs/", answers.lost())
    made = hook.submit_job(entrypoint="true")
    assert list(server.jobs) == [made]
    assert [one.method for one in server.received] == ["POST", "GET"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("submission_id", "a/b"),
        ("metadata", {"k": 1}),
        ("entrypoint", ""),
        ("runtime_env", {"working_dir": "/here"}),
        ("entrypoint_num_cpus", "two"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_sent(
    field: str, value: Any, server: ScriptedRay, hook: Any
) -> None:
    with pytest.raises((ValueError, TypeError), match=field):
        hook.submit_job(**{**JOB, field: value})
    assert server.received == []


def test_local_files_are_uploaded_before_the_job_is_submitted(
    server: ScriptedRay, hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "main.py").write_text("print(1)")
    (tmp_path / "requirements.txt").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    made = hook.submit_job(entrypoint="true", runtime_env={"working_dir": ".", "pip": "requirements.txt"})
    [package] = server.packages
    assert server.jobs[made].request["runtime_env"] == {
        "working_dir": f"gcs://{package}",
        "pip": {"packages": ["a"], "pip_check": False},
    }
    assert [one.method for one in server.received] == ["GET", "PUT", "POST"]
    ready = hook.prepare_runtime_env({"working_dir": str(tmp_path)})
    hook.submit_job(entrypoint="true", runtime_env=ready)
    assert [one.method for one in server.received][3:] == ["GET", "POST"]


def test_an_upload_is_bounded_by_the_connection(
    server: ScriptedRay, hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(2**20))
    say(monkeypatch, server, max_upload_size=0.5)
    with pytest.raises(errors.RayPackageTooLargeError, match=r"more than 512\.0 KiB"):
        hook.submit_job(entrypoint="true", runtime_env={"working_dir": str(tmp_path)})
    assert not server.jobs


def test_packing_does_not_block_the_event_loop(server: ScriptedRay, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print(1)")
    server.script("PUT", ".*", answers.default(delay=0.5))

    async def submit() -> int:
        hook = RayJobAsyncHook("ray_x")
        ticks = 0
        task = asyncio.ensure_future(hook.prepare_runtime_env({"working_dir": str(tmp_path)}))
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        await hook.close()
        return ticks

    assert asyncio.run(submit()) > 10


def test_an_empty_id_names_no_job_and_asks_nothing(server: ScriptedRay, hook: Any) -> None:
    for verb in ("stop_job", "delete_job", "get_job_info"):
        with pytest.raises(ValueError, match="must not be"):
            getattr(hook, verb)("")
    assert server.received == []


def test_a_stream_that_breaks_raises_and_one_that_is_left_is_closed(server: ScriptedRay) -> None:
    server.add_job("a")
    server.append_log("a", ["one\n", "two\n"])
    server.tails(Tail(after=1, code=1011))
    pieces = RayJobHook("ray_x").tail_job_logs("a")
    assert next(pieces) == "one\n"
    with pytest.raises(errors.RayClusterUnreachableError, match="1011"):
        next(pieces)
    left = RayJobHook("ray_x").tail_job_logs("a")
    assert next(left) == "one\n"
    left.close()


def test_credentials_of_the_connection_are_sent(
    server: ScriptedRay, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "tok"
    say(monkeypatch, server, token="tok")
    server.add_job("a", "SUCCEEDED")
    assert hook.get_job_status("a") is JobStatus.SUCCEEDED
    assert list(hook.tail_job_logs("a")) == []
    assert {one.headers.get("authorization") for one in server.received} == {"Bearer tok"}


def test_a_wrong_connection_is_named_at_the_first_request(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", '{"conn_type": "ray_jobs", "host": "ray://head"}')
    with pytest.raises(errors.RayConnectionConfigError, match="'ray_x', field 'host'"):
        hook.get_version()


def test_a_closed_hook_opens_another_session(server: ScriptedRay, hook: Any) -> None:
    for _ in range(2):
        assert hook.get_version() == "2.60.0"
        hook.close()
    assert len({one.peer for one in server.received}) == 2


# The button of the connection form


def test_a_good_connection_says_what_it_found(server: ScriptedRay) -> None:
    hook = RayJobHook("ray_x")
    assert hook.test_connection() == (True, f"Ray 2.60.0 at {server.url}, session {server.session_name}")
    hook.close()


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        ({"host": "ray://head"}, "Connection 'ray_x', field 'host': 'ray://head' can only be resolved by"),
        ({"host": "127.0.0.1", "port": 1}, "connection refused; check the connection's host and port"),
        ({"host": "h", "extra": {"verfy": True}}, "field 'verfy': is not a known key"),
    ],
)
def test_a_bad_connection_says_what_to_check(
    connection: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_rayjobs.client.retries.ATTEMPTS", 1)
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps({"conn_type": "ray_jobs", **connection}))
    hook = RayJobHook("ray_x")
    good, text = hook.test_connection()
    hook.close()
    assert not good
    assert words in text
    assert "\n" not in text


def test_a_server_that_is_no_ray_dashboard_says_so(server: ScriptedRay) -> None:
    server.script("GET", "/api/version", answers.html(), answers.unauthorized())
    hook = RayJobHook("ray_x")
    assert hook.test_connection() == (
        False,
        f"{server.url}: expected an answer of the Ray Jobs API, got a web page; check that the connection's host, port "
        "and path prefix are those of the Ray dashboard",
    )
    assert "requires a token; connection 'ray_x' has none" in hook.test_connection()[1]
    hook.close()


def test_an_unused_hook_closes_without_a_word() -> None:
    RayJobHook("ray_x").close()
    asyncio.run(RayJobAsyncHook("ray_x").close())
