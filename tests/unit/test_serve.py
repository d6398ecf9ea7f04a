"""What Serve answers is checked once: types, lengths, and text that logs can hold."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayjobs.serve import LONGEST_MESSAGE, ServeDeployment, ServeDetails

APPLICATION: dict[str, Any] = {
    "name": "text",
    "status": "DEPLOYING",
    "message": "",
    "route_prefix": "/text",
    "last_deployed_time_s": 12.5,
    "deployed_app_config": {"name": "text", "import_path": "m:app"},
    "source": "declarative",
    "deployments": {
        "Model": {
            "status": "UPDATING",
            "message": "starting",
            "target_num_replicas": 2,
            "replicas": [{"state": "RUNNING"}, {"state": "STARTING"}],
        }
    },
}


def read(**changes: Any) -> Any:
    return ServeDetails.from_json({"applications": {"text": {**APPLICATION, **changes}}}).applications["text"]


def test_an_application_is_read() -> None:
    application = read()
    assert (application.status, application.route_prefix, application.deployed_at) == ("DEPLOYING", "/text", 12.5)
    assert application.config == {"name": "text", "import_path": "m:app"}
    assert application.deployments == (ServeDeployment("Model", "UPDATING", "starting", running=1, target=2),)
    assert (application.is_running, application.imperative) == (False, False)
    assert read(source="imperative").imperative


def test_serve_that_has_not_been_started_has_none() -> None:
    assert ServeDetails.from_json({"controller_info": {}, "proxies": {}, "applications": {}}) == ServeDetails()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"applications": []},
        {"applications": {"a": 1}},
        {"applications": {"a": {"status": None}}},
        {"applications": {}, "target_capacity": "all"},
        {"applications": {}, "target_capacity": True},
    ],
)
def test_what_is_not_of_serve_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="an a"):
        ServeDetails.from_json(data)


@pytest.mark.parametrize(
    "field", ["message", "route_prefix", "last_deployed_time_s", "deployed_app_config", "deployments", "source"]
)
@pytest.mark.parametrize("value", [None, 1, "x", [], {"a": 1}, float("nan"), True])
def test_a_field_of_another_type_harms_nothing(field: str, value: Any) -> None:
    application = read(**{field: value})
    assert isinstance(application.message, str)
    assert isinstance(application.deployed_at, float)


@pytest.mark.parametrize("name", ["a" * 201, "a\x1b[2J", "a\ud800"])
def test_an_application_is_known_by_its_own_name_only(name: str) -> None:
    """Two names that are cut or escaped alike would be one application."""
    with pytest.raises(ValueError, match="an application whose name has more than 200 characters, or control"):
        ServeDetails.from_json({"applications": {name: APPLICATION}})


def test_text_is_made_safe_and_cut() -> None:
    application = read(message="x" * LONGEST_MESSAGE + "the cause\0\ud800", status="S" * 1000)
    assert application.message.endswith(r"the cause\x00\ud800")
    assert len(application.message) < LONGEST_MESSAGE + 20
    assert len(application.status) == 200


@pytest.mark.parametrize(
    "deployment", [1, None, {"replicas": 1}, {"replicas": [1, {"state": 2}], "target_num_replicas": True}]
)
def test_deployments_of_another_form(deployment: Any) -> None:
    for one in read(deployments={"Model": deployment}).deployments:
        assert (one.running, one.target, one.status) == (0, None, "")
