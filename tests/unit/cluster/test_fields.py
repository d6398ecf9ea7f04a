"""The connection form, as each version of Airflow shows it, and what its test button answers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.cluster import fields as fields_module
from airflow_provider_rayjobs.hooks import RayJobHook
from tests.support import answers

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay

SECRET = {"token", "headers", "cookies"}

#: Asked in a process of its own: Airflow's API replaces modules that are missing.
ASK_AIRFLOW_3 = """
import json
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

(found,) = [hook for hook in HookMetaService.hook_meta_data() if hook.connection_type == "ray_jobs"]
fields = {
    key: [field["schema"].get("title"), field["description"], field["schema"].get("format") == "password"]
    for key, field in (found.extra_fields or {}).items()
}
standard = found.standard_fields
print("FORM", json.dumps([found.hook_name, fields, [standard.password.title, standard.host.placeholder]]))
"""

ASK_AIRFLOW_2 = """
import json
from airflow.providers_manager import ProvidersManager

manager = ProvidersManager()
fields = {
    widget.field_name: [str(field.args[0]), field.kwargs["description"], field.field_class.__name__ == "PasswordField"]
    for key, widget in manager.connection_form_widgets.items() if key.startswith("extra__ray_jobs__")
    for field in [widget.field]
}
shown = manager.field_behaviours["ray_jobs"]
texts = [shown["relabeling"]["password"], shown["placeholders"]["host"]]
print("FORM", json.dumps([manager.hooks["ray_jobs"].hook_name, fields, texts]))
"""


def has_web_api() -> bool:
    try:
        import airflow.api_fastapi.core_api.services.ui.connections  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.skipif(
    version("apache-airflow").startswith("3.0.") and importlib.util.find_spec("wtforms") is None,
    reason="Airflow 3.0 shows no fields of any provider without the FAB provider",
)
def test_airflow_shows_a_field_for_each_key_of_the_extra_and_hides_what_is_secret() -> None:
    program = ASK_AIRFLOW_3 if has_web_api() else ASK_AIRFLOW_2
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:airflow_provider_rayjobs", "-c", program],
        env={**os.environ, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("FORM ")]
    assert found, done.stdout + done.stderr
    name, fields, texts = json.loads(found[0].removeprefix("FORM "))
    assert name == "Ray Jobs"
    assert texts == ["Token, or the login's password", "ray-head.example.com, or https://example.com/path/prefix"]
    assert list(fields) == list(fields_module.FIELDS)
    assert {key for key, (_, _, secret) in fields.items() if secret} == SECRET
    for key, (label, description, _) in fields.items():
        assert label == fields_module.FIELDS[key].label
        assert description.endswith(".")
    assert "rayjobs" not in done.stderr, "Airflow has a word to say on the provider"


@pytest.fixture
def hook(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> RayJobHook:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    return RayJobHook("ray_x")


def cluster_status(**report: Any) -> answers.Answer:
    return answers.as_json({"result": True, "data": {"clusterStatus": {"loadMetricsReport": report}}})


def test_the_test_button_tells_the_version_and_what_is_free(hook: RayJobHook, scripted_ray: ScriptedRay) -> None:
    usage = {"CPU": [3.5, 16.0], "GPU": [0.0, 2.0], "memory": [0, 1]}
    scripted_ray.script("GET", "/api/cluster_status", cluster_status(usage=usage, nodeTypes=[[{"CPU": 8.0}, 2]]))
    good, said = hook.test_connection()
    assert good
    assert said.startswith(f"Ray 2.60.0 at {scripted_ray.url}, session session_")
    assert said.endswith("; 2 nodes, 12.5 of 16 CPUs free, 2 of 2 GPUs free")
    hook.close()


@pytest.mark.parametrize(
    "answer",
    [
        answers.html(),
        answers.text(502, "Bad gateway"),
        answers.as_json({"data": {"clusterStatus": None}}),
        cluster_status(usage={"CPU": ["many", 2]}, nodeTypes=[]),
        cluster_status(usage={}, nodeTypes="none"),
    ],
    ids=["page", "502", "nothing", "words", "other"],
)
def test_what_the_cluster_does_not_tell_is_left_out(
    hook: RayJobHook, scripted_ray: ScriptedRay, answer: answers.Answer
) -> None:
    scripted_ray.script("GET", "/api/cluster_status", answer)
    good, said = hook.test_connection()
    assert good
    assert ";" not in said
    assert len(scripted_ray.received_on("GET", "/api/cluster_status")) == 1
    hook.close()


def test_the_test_button_tells_what_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "ray_jobs", "host": "head", "extra": {"verify": "/no/such"}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))
    good, said = RayJobHook("ray_x").test_connection()
    assert not good
    assert "'verify'" in said
    assert "does not exist on this machine" in said


@pytest.mark.parametrize(
    "url",
    [
        "ray.example.com",
        "ftp://ray.example.com",
        "https://me:secret@ray.example.com",
        "http://",
        "https://host:port",
        "https://ho st",
        "http://[abc",
    ],
)
def test_a_dashboard_that_no_browser_opens_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    connection = {"conn_type": "ray_jobs", "host": "head", "extra": {"dashboard_url": url}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))
    good, said = RayJobHook("ray_x").test_connection()
    assert not good
    assert "'dashboard_url'" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("javascript:alert('{submission_id}')", "must be a URL that begins with http:// or https://"),
        ("data:text/html,{submission_id}", "must be a URL that begins with http:// or https://"),
        ("//history/{submission_id}", "must be a URL that begins with http:// or https://"),
        ("https://me:secret@history/{submission_id}", "without a login"),
        ("https://{submission_id}.example.com/", "must not have a placeholder in its host"),
        ("https://history/{dag_id}", "has the placeholder {dag_id}; allowed are {submission_id}, {session}"),
        ("https://history/{cluster}", "has the placeholder {cluster}; allowed are {submission_id}, {session}"),
        ("https://history/{submission_id.x}", "may contain braces only around {submission_id}, {session}"),
        ("https://history/}{", "write %7B and %7D"),
    ],
)
def test_a_history_server_that_no_browser_opens_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    connection = {"conn_type": "ray_jobs", "host": "head", "extra": {"history_url": url}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))
    good, said = RayJobHook("ray_x").test_connection()
    assert not good
    assert "'history_url'" in said
    assert problem in said
    assert "secret" not in said


def test_the_job_page_is_where_people_reach_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    connection: dict[str, Any] = {"conn_type": "ray_jobs", "host": "https://api.example.com/ray"}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))
    assert RayJobHook("ray_x").cluster.job_page("a b") == "https://api.example.com/ray/#/jobs/a%20b"
    connection["extra"] = {"dashboard_url": "https://ray.example.com/dash/#/overview"}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))
    assert RayJobHook("ray_x").cluster.job_page("a") == "https://ray.example.com/dash/#/jobs/a"
