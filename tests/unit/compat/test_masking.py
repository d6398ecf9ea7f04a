"""Secrets of connections and of jobs: what Airflow masks everywhere, and what is masked in one job's text only."""

from __future__ import annotations

import base64
import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import redact

from airflow_provider_rayjobs.compat import connections, masking
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus
from airflow_provider_rayjobs.text.job_secrets import WITHHELD
from tests.support.connections import read

if TYPE_CHECKING:
    from pathlib import Path

LISTED = "airflow_secret_env_vars"


def test_a_jobs_secrets_are_masked_in_its_own_text_and_in_no_other() -> None:
    job = JobDetails(
        "SUBMISSION",
        JobStatus.FAILED,
        metadata={LISTED: "DSN"},
        runtime_env={"env_vars": {"A_PASSWORD": "Traceback", "DSN": "dsn-3c9d", "SIZE": "large-one"}},
    )
    public = masking.public_for(job)
    assert public("Traceback: dsn-3c9d large-one") == "***: *** large-one"
    assert redact("Traceback dsn-3c9d") == "Traceback dsn-3c9d"
    assert masking.public_for(None)("Traceback") == "Traceback"


def test_airflow_is_asked_to_mask_what_is_sensitive_in_a_connection_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow 3.1 and newer warn of each short value that they are asked to mask, under whatever name."""
    masked: list[Any] = []
    monkeypatch.setattr(masking, "mask_secret", masked.extend)
    extra = {
        "unreachable_timeout": 30,
        "max_upload_size": 5,
        "verify": False,
        "token": "tok-8e21",
        "headers": {"X-Secret": "key-8e21", "X-Team": "a"},
        "metadata": {"password": "meta-8e21", "n": "1"},
        "cookies": {"session": "c-8e21"},
    }
    fields = {"host": "http://head:8265", "port": None, "schema": None, "login": None, "password": None}
    connection: Any = SimpleNamespace(conn_type="ray_jobs", extra=json.dumps(extra), **fields)
    cluster = connections.load_cluster("ray_x", connection)
    assert masked == ["tok-8e21", "key-8e21", "meta-8e21"]
    masking.register_cluster(cluster)
    assert "meta-8e21" in masked
    assert not {"30", "5", "False", "a", "1"}.intersection(masked)
    assert all(isinstance(secret, str) and len(secret) > 5 for secret in masked)


def test_what_airflow_masks_is_masked_in_a_jobs_text_too() -> None:
    masking.register_env_vars({"PEM": "known-secret-7b1"}, ["PEM", "MISSING"])
    assert masking.public_for(JobDetails("SUBMISSION", JobStatus.RUNNING))("a known-secret-7b1") == "a ***"


def test_a_job_with_thousands_of_variables_is_judged_at_once() -> None:
    env_vars = {f"V{n}": f"value-{n:06}" for n in range(30_000)}
    began = time.process_time()
    public = masking.public_for(JobDetails("SUBMISSION", JobStatus.RUNNING, runtime_env={"env_vars": env_vars}))
    assert public("text") == WITHHELD
    assert time.process_time() - began < 1


def test_secrets_are_masked_and_harmless_headers_are_not() -> None:
    headers = {
        "X-Api-Key": "key-5af1c2",
        "X-Gateway-Auth": "gate-5af1c2",
        "Accept": "text/plain",
        "X-Team": "analytics",
        "X-Pass": "abc",  # too short to be one
    }
    extra = {"headers": headers, "cookies": {"session": "cookie-5af1c2"}, "token": "token-5af1c2"}
    cluster = read(extra, host="head", login="me", password="word-5af1c2")
    masking.register_cluster(cluster)
    basic = base64.b64encode(b"me:word-5af1c2").decode()
    for secret in ("key-5af1c2", "gate-5af1c2", "cookie-5af1c2", "token-5af1c2", basic):
        assert redact(f"x {secret} y") == "x *** y"
    harmless = "Accept: text/plain from analytics, abc"
    assert redact(harmless) == harmless


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is registered with Airflow in a process that has registered nothing yet."""
    values: list[str] = []
    real = masking.mask_secret

    def mask_secret(secrets: Any) -> None:
        values.extend(secrets)
        real(secrets)

    monkeypatch.setattr(masking, "mask_secret", mask_secret)
    monkeypatch.setattr(masking._Passing, "number", 0)
    return values


def test_a_value_is_registered_once_however_often_the_connection_is_read(registered: list[str]) -> None:
    for _ in range(3):
        masking.register_cluster(read({"token": "once-4d7e10", "headers": {"X-Api-Key": "key-4d7e10"}}, host="head"))
    assert sorted(registered) == ["Bearer once-4d7e10", "key-4d7e10", "once-4d7e10"]


def test_a_value_that_holds_a_registered_one_is_registered_too(registered: list[str]) -> None:
    masking.register_env_vars({"A_PASSWORD": "part-4d7e11"})
    masking.register_env_vars({"A_PASSWORD": "part-4d7e11-and-more"})
    assert registered == ["part-4d7e11", "part-4d7e11-and-more"]


def test_airflows_masker_does_not_grow_with_the_clusters_of_single_tasks(registered: list[str]) -> None:
    for number in range(2 * masking.MOST_PASSING):
        masking.register_cluster(read({"token": f"own-4d7e12-{number}"}, host="head"), passing=True)
    assert len(registered) <= masking.MOST_PASSING + 1


def test_airflows_masker_does_not_grow_with_the_jobs_that_a_process_submits(registered: list[str]) -> None:
    first = {f"TOKEN_{number}": f"first-4d7e13-{number}" for number in range(2 * masking.MOST_PASSING)}
    masking.register_env_vars(first, passing=True)
    assert len(registered) == len(first)  # those of one job all, or a task that submits one would show some
    masking.register_env_vars({"TOKEN": "second-4d7e13"}, passing=True)
    assert len(registered) == len(first)
    masking.register_env_vars({"TOKEN": "second-4d7e13"})
    assert registered[-1] == "second-4d7e13"


def test_values_that_airflow_never_masks_do_not_count(registered: list[str]) -> None:
    for _ in range(2 * masking.MOST_PASSING):
        masking.register_env_vars({"DB_PASSWORD": "none"}, passing=True)
    masking.register_env_vars({"DB_PASSWORD": "real-4d7e15"}, passing=True)
    assert registered[-1] == "real-4d7e15"


def test_tokens_that_rotate_are_masked_in_the_text_of_the_cluster_and_registered_up_to_a_limit(
    registered: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.touch()
    cluster = read({"token_file": str(file)}, host="head")
    masking.register_cluster(cluster)
    job = JobDetails("SUBMISSION", JobStatus.RUNNING, runtime_env={"env_vars": {"TOKEN": "job-4d7e14"}})
    public = masking.public_for(job, cluster)
    for number in range(2 * masking.MOST_PASSING):
        token = f"rot-4d7e14-{number:04}"
        file.write_text(token)
        assert cluster.token is not None
        assert cluster.token.current() == token
        assert public(f"{token} job-4d7e14") == "*** ***"
        masking.register_cluster(cluster)
    assert len(registered) == masking.MOST_PASSING
    assert public(f"{token[:-1]}8 {token}") == "*** ***", "a job has printed the token of its start"


SERVE = {
    "applications": [
        {
            "name": "text",
            "runtime_env": {"env_vars": {"HF_TOKEN": "hf-1234567", "MODE": "fast-mode"}},
            "deployments": [{"name": "M", "user_config": {"passwords": ["first-one", {"a": "second-one"}]}}],
        }
    ]
}


def test_what_is_sensitive_in_a_config_of_serve_is_masked_at_any_level(registered: list[str]) -> None:
    public = masking.public_for_config(SERVE)
    assert public("hf-1234567 fast-mode first-one second-one") == "*** fast-mode *** ***"
    masking.register_config(SERVE)
    assert sorted(registered) == ["first-one", "hf-1234567", "second-one"]


@pytest.mark.parametrize(
    ("config", "holds"),
    [
        (SERVE, True),
        (SERVE["applications"], True),
        ({"runtime_env": {"env_vars": {"MODE": "fast"}}}, False),
        ({"working_dir": "https://me:pw@store/a.zip"}, True),
        ({"working_dir": "https://store/a.zip?signature=abc"}, True),
        ({"text": None, "list": [{"working_dir": "s3://store/a.zip"}]}, False),
        ({"HF_TOKEN": ""}, False),
    ],
)
def test_what_a_database_must_not_hold_is_found(config: Any, holds: bool) -> None:
    assert masking.holds_secrets(config) is holds
