"""The verbs of Serve's route, over both transports: what each answer means."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.client import serve
from tests.support import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.scripted_server import ScriptedRay

CONFIG = {"applications": [{"name": "a", "import_path": "m:app", "runtime_env": {"env_vars": {"KEY": "the-secret"}}}]}
ROUTE = re.escape(serve.ROUTE)

VALIDATION = """2 validation errors for ServeDeploySchema
applications.0.import_path
  Field required [type=missing, input_value={'runtime_env': {'env_var...KEY': 'the-sec'}}, input_type=dict]
    For further information visit https://errors.example.com/2.14/v/missing
applications.1
  Value error, no the-secret here [type=value_error, input_value='x', input_type=str]"""


def test_details_are_read(scripted_ray: ScriptedRay, connect: Callable[..., Any]) -> None:
    application = {"status": "RUNNING", "deployed_app_config": CONFIG["applications"][0]}
    scripted_ray.script("GET", ROUTE, answers.as_json({"applications": {"a": application}}))
    details = connect(scripted_ray).run(serve.get_serve_details())
    assert details.applications["a"].config == CONFIG["applications"][0]


def test_a_config_is_sent_as_it_is(scripted_ray: ScriptedRay, connect: Callable[..., Any]) -> None:
    scripted_ray.script("PUT", ROUTE, answers.Answer(200))
    assert connect(scripted_ray).run(serve.deploy_applications(CONFIG)) is None
    assert [one.json for one in scripted_ray.received_on("PUT")] == [CONFIG]


@pytest.mark.parametrize("answer", [answers.lost(), answers.drop(), answers.bad_gateway()])
def test_a_config_is_sent_once_only(
    scripted_ray: ScriptedRay, connect: Callable[..., Any], answer: answers.Answer
) -> None:
    """A config that is sent again later may delete what was deployed meanwhile. aiohttp itself does so at once."""
    scripted_ray.script("PUT", ROUTE, answer, answer, answers.Answer(200))
    with pytest.raises(errors.RayClusterUnreachableError):
        connect(scripted_ray).run(serve.deploy_applications(CONFIG))
    assert len(scripted_ray.received_on("PUT")) <= 2


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (
            answers.text(501, "Serve dependencies are not installed."),
            "RayRequestRefusedError",
            "install ray[serve] there",
        ),
        (answers.text(404, "404: Not Found"), "RayProtocolError", f"does not serve {serve.ROUTE}; a proxy must pass"),
        (
            answers.text(400, VALIDATION),
            "RayRequestRefusedError",
            "Ray Serve refused the config: 2 validation errors for ServeDeploySchema; applications.0.import_path; "
            "Field required; applications.1; Value error, no",
        ),
        (answers.text(400, ""), "RayRequestRefusedError", "refused the config: no explanation"),
        (answers.bad_request("ValueError: no such option"), "RayRequestRefusedError", "ValueError: no such option"),
        (answers.internal_error(), "RayAPIError", "Failed to look up actor"),
        (answers.html(), "RayProtocolError", "a web page"),
        (answers.unauthorized(), "RayAuthError", "requires a token"),
    ],
    ids=["no serve", "no route", "invalid", "no text", "traceback", "500", "page", "token"],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_an_error_says_what_is_wrong_without_secrets(
    scripted_ray: ScriptedRay, connect: Callable[..., Any], answer: answers.Answer, kind: str, said: str, method: str
) -> None:
    scripted_ray.script(method, ROUTE, answer, forever=True)
    flow = serve.get_serve_details() if method == "GET" else serve.deploy_applications(CONFIG)
    with pytest.raises(errors.RayAPIError) as caught:
        connect(scripted_ray).run(flow)
    assert type(caught.value).__name__ == kind
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "the-sec" not in str(caught.value) or method == "GET"  # a GET sends no secret, and could not know it


@pytest.mark.parametrize(
    "body",
    [
        *('{"applications": 1}', "[]", "{", '{"applications": {"a": {}}}'),
        json.dumps({"applications": {"a" * 201: {"status": "RUNNING"}}}),
    ],
)
def test_an_answer_of_another_form_is_refused(
    scripted_ray: ScriptedRay, connect: Callable[..., Any], body: str
) -> None:
    scripted_ray.script("GET", ROUTE, answers.Answer(200, body.encode()))
    with pytest.raises(errors.RayProtocolError):
        connect(scripted_ray).run(serve.get_serve_details())


def test_details_of_many_replicas_are_read(scripted_ray: ScriptedRay, connect: Callable[..., Any]) -> None:
    """As Ray 2.60 describes a replica; the details of jobs, which an event loop reads, have a lower limit."""
    fields = ("node_id", "node_ip", "actor_id", "actor_name", "worker_id", "log_file_path", "replica_id", "state")
    replica = dict.fromkeys(fields, "RUNNING") | {"pid": 1, "start_time_s": 1.0, "node_instance_id": "i"}
    model = {"status": "HEALTHY", "target_num_replicas": 3000, "replicas": [replica] * 3000}
    application = {"status": "RUNNING", "deployments": {"M": model}}
    scripted_ray.script("GET", ROUTE, answers.as_json({"applications": {"a": application}}))
    details = connect(scripted_ray).run(serve.get_serve_details())
    assert details.applications["a"].deployments[0].running == 3000


def test_details_that_are_too_large_are_told(
    scripted_ray: ScriptedRay, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "DETAILS_PARTS", 10)
    scripted_ray.script("GET", ROUTE, answers.as_json({"applications": {"a": {"x": list(range(20))}}}))
    with pytest.raises(errors.RayProtocolError, match="larger than what the provider reads: JSON with more than 10"):
        connect(scripted_ray).run(serve.get_serve_details())
