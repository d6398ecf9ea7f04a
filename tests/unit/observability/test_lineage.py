"""What events tell of a job, checked by the schemas, and what a job is told; OpenLineage's own part is played here."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import ValidationError

from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.jobs import JobFailure
from airflow_provider_rayjobs.observability import lineage
from airflow_provider_rayjobs.observability.lineage import JobFacts
from tests.support import lineage_schemas

if TYPE_CHECKING:
    from collections.abc import Mapping

BASE = {"_producer": lineage.PRODUCER, "_schemaURL": "urn:x"}
SUBMISSION = "urn:airflow-provider-rayjobs:RayJobsSubmissionJobFacet:1-0-0#/$defs/RayJobsSubmissionJobFacet"
OUTCOME = "urn:airflow-provider-rayjobs:RayJobsOutcomeRunFacet:1-0-0#/$defs/RayJobsOutcomeRunFacet"
API_KEY = "the-key-of-lineage"
TI = SimpleNamespace(dag_id="dag", task_id="task")


def event(outcome: Outcome, **fields: Any) -> JobEvent:
    return JobEvent("raysubmit_1", "http://ray:8265", outcome, **fields)


def test_what_was_submitted() -> None:
    facts = JobFacts("raysubmit_1", "http://user:pass@ray:8265", "2.60.0")
    fields = lineage.submission_fields("python train.py --token=s3cr3t", "ray_default", facts)
    lineage_schemas.check({**BASE, **fields}, SUBMISSION)
    assert fields.pop("entrypointDigest").startswith("sha256:")
    assert fields == {
        "submissionId": "raysubmit_1",
        "connection": "ray_default",
        "address": "http://***@ray:8265",
        "rayVersion": "2.60.0",
    }


def test_before_the_job_exists_only_known_facts_are_told() -> None:
    fields = lineage.submission_fields("true", "", JobFacts())
    lineage_schemas.check({**BASE, **fields}, SUBMISSION)
    assert set(fields) == {"entrypointDigest"}
    assert lineage.submission_fields(object(), "", JobFacts()) == {}  # an XCom that could not be rendered


def test_a_list_of_words_has_the_digest_of_its_command_line() -> None:
    assert lineage.entrypoint_digest(["echo", "a b"]) == lineage.entrypoint_digest("echo 'a b'")
    assert lineage.entrypoint_digest("echo a b") != lineage.entrypoint_digest("echo 'a b'")
    assert lineage.entrypoint_digest(["echo", 1]) == ""


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_its_schema(outcome: Outcome) -> None:
    fields = lineage.outcome_fields(event(outcome, detail="is gone", message="Ray's words"))
    lineage_schemas.check({**BASE, **fields}, OUTCOME)
    assert ("message" in fields) == (outcome is not Outcome.SUCCEEDED)
    assert fields["status"] == outcome.name


def test_why_a_job_failed() -> None:
    failure = JobFailure("OUT_OF_MEMORY", 137)
    fields = lineage.outcome_fields(event(Outcome.FAILED, exit_code=137, failure=failure, log_tail=("x" * 9000,)))
    lineage_schemas.check({**BASE, **fields}, OUTCOME)
    assert (fields["exitCode"], fields["cause"]) == (137, "OUT_OF_MEMORY")
    assert fields["message"].startswith("Ray job FAILED: ")
    assert len(fields["message"]) == lineage.LONGEST_MESSAGE


def test_an_error_has_no_secrets_that_airflow_masks() -> None:
    masking.register_env_vars({"MY_PASSWORD": "correct-horse"})
    fields = lineage.outcome_fields(event(Outcome.LOST, detail="said correct-horse to http://a:b@ray"))
    assert "correct-horse" not in fields["message"]
    assert "a:b" not in fields["message"]


def test_a_facet_that_lacks_or_mistakes_a_field_is_found_out() -> None:
    lineage_schemas.check({**BASE, "submissionId": "a", "status": "LOST"}, OUTCOME)
    for wrong in ({"status": "LOST"}, {"submissionId": "a", "status": "lost"}):
        with pytest.raises(ValidationError):
            lineage_schemas.check({**BASE, **wrong}, OUTCOME)
    with pytest.raises(ValidationError):
        lineage_schemas.check({**BASE, "entrypointDigest": "python train.py"}, SUBMISSION)


class Auth:
    def __init__(self, bearer: str | None) -> None:
        self.get_bearer = lambda: bearer


def http(key: str | None = None, **config: Any) -> Any:
    options = {"auth": Auth(key and f"Bearer {key}"), "custom_headers": None, **config}
    where = {"url": "http://lineage:5000", "endpoint": "api/v1/lineage", "timeout": 5.0, "compression": None}
    return SimpleNamespace(kind="http", **where, config=SimpleNamespace(**options))


@pytest.fixture
def airflows(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for the OpenLineage provider, which only the environments of `make lineage` have."""
    played = SimpleNamespace(transport=http(API_KEY))
    adapter = SimpleNamespace(get_or_create_openlineage_client=lambda: played)
    plugins: Any = ModuleType("plugins")
    plugins.macros = SimpleNamespace(
        lineage_parent_id=lambda ti: f"ns/{ti.dag_id}.{ti.task_id}/1-2-3", lineage_root_parent_id=lambda ti: "ns/dag/4"
    )
    listener: Any = ModuleType("listener")
    listener.get_openlineage_listener = lambda: SimpleNamespace(adapter=adapter)
    name = "airflow.providers.openlineage"
    for module, value in {
        name: ModuleType(name),
        f"{name}.plugins": plugins,
        f"{name}.plugins.macros": plugins.macros,
        f"{name}.plugins.listener": listener,
    }.items():
        monkeypatch.setitem(sys.modules, module, value)
    return played


def told(
    env_vars: Mapping[str, str] | None = None, *, parent: bool = False, transport: bool = False, **job: Any
) -> dict[str, Any]:
    runtime_env = None if env_vars is None else {"pip": ["a"], "env_vars": env_vars}
    given = {"entrypoint": "true", "metadata": {}, "runtime_env": runtime_env, **job}
    return lineage.with_run_of_task(given, TI, parent=parent, transport=transport)


@pytest.mark.usefixtures("airflows")
def test_a_job_is_told_of_its_parent_run() -> None:
    parents = {"OPENLINEAGE_PARENT_ID": "ns/dag.task/1-2-3", "OPENLINEAGE_ROOT_PARENT_ID": "ns/dag/4"}
    assert told(parent=True)["runtime_env"] == {"env_vars": parents}
    job = told({"A": "b"}, parent=True)
    assert job["runtime_env"] == {"pip": ["a"], "env_vars": {"A": "b", **parents}}
    assert job["metadata"] == {}


@pytest.mark.usefixtures("airflows")
@pytest.mark.parametrize("name", ["OPENLINEAGE_PARENT_ID", "OPENLINEAGE_ROOT_PARENT_ID", "OPENLINEAGE_CONTEXT"])
def test_a_parent_run_that_the_author_has_set_stays(name: str) -> None:
    assert told({name: "mine"}, parent=True)["runtime_env"]["env_vars"] == {name: "mine"}


@pytest.mark.usefixtures("airflows")
def test_a_job_is_told_of_the_transport_with_its_key_as_a_secret() -> None:
    job = told({"A": "b"}, transport=True, metadata={"airflow_secret_env_vars": "A", "team": "x"})
    assert job["runtime_env"]["env_vars"] == {
        "A": "b",
        "OPENLINEAGE__TRANSPORT__TYPE": "http",
        "OPENLINEAGE__TRANSPORT__URL": "http://lineage:5000",
        "OPENLINEAGE__TRANSPORT__ENDPOINT": "api/v1/lineage",
        "OPENLINEAGE__TRANSPORT__TIMEOUT": "5.0",
        "OPENLINEAGE__TRANSPORT__AUTH__TYPE": "api_key",
        "OPENLINEAGE__TRANSPORT__AUTH__API_KEY": API_KEY,
    }
    assert job["metadata"] == {
        "airflow_secret_env_vars": "A,OPENLINEAGE__TRANSPORT__AUTH__API_KEY",
        "team": "x",
    }
    assert API_KEY not in masking.public(f"curl {API_KEY}")


@pytest.mark.parametrize("name", ["OPENLINEAGE_URL", "OPENLINEAGE__TRANSPORT__TYPE", "OPENLINEAGE_CONFIG"])
@pytest.mark.usefixtures("airflows")
def test_a_transport_that_the_author_has_set_stays(name: str) -> None:
    assert told({name: "mine"}, transport=True)["runtime_env"]["env_vars"] == {name: "mine"}


def test_headers_and_compression_are_told(airflows: SimpleNamespace) -> None:
    airflows.transport = http(custom_headers={"X-Key": "hidden-value"})
    airflows.transport.compression = "gzip"
    job = told(transport=True)
    env_vars = job["runtime_env"]["env_vars"]
    assert env_vars["OPENLINEAGE__TRANSPORT__COMPRESSION"] == "gzip"
    assert json.loads(env_vars["OPENLINEAGE__TRANSPORT__CUSTOM_HEADERS"]) == {"X-Key": "hidden-value"}
    assert job["metadata"] == {"airflow_secret_env_vars": "OPENLINEAGE__TRANSPORT__CUSTOM_HEADERS"}
    assert "OPENLINEAGE__TRANSPORT__AUTH__TYPE" not in env_vars


def test_of_several_transports_those_by_http_are_told(
    airflows: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [SimpleNamespace(kind="file"), http(API_KEY), http()]
    options = SimpleNamespace(continue_on_failure=True)
    airflows.transport = SimpleNamespace(kind="composite", transports=parts, config=options)
    with caplog.at_level("INFO", lineage.__name__):
        env_vars = told(transport=True)["runtime_env"]["env_vars"]
    assert env_vars["OPENLINEAGE__TRANSPORT__TYPE"] == "composite"
    assert env_vars["OPENLINEAGE__TRANSPORT__CONTINUE_ON_FAILURE"] == "true"
    assert env_vars["OPENLINEAGE__TRANSPORT__TRANSPORTS__HTTP1__AUTH__API_KEY"] == API_KEY
    assert env_vars["OPENLINEAGE__TRANSPORT__TRANSPORTS__HTTP2__TYPE"] == "http"
    assert "OPENLINEAGE__TRANSPORT__TRANSPORTS__HTTP2__AUTH__API_KEY" not in env_vars
    assert "OpenLineage's transport file" in caplog.text


def test_a_transport_that_is_of_no_use_on_a_cluster_is_not_told(airflows: SimpleNamespace) -> None:
    airflows.transport = SimpleNamespace(kind="file")
    assert told(transport=True)["runtime_env"] is None
