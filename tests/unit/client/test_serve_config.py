"""Configs of Serve: what a plan sends and says, and what a rollback puts back."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayjobs.client import serve_config
from airflow_provider_rayjobs.client.serve_config import digest_of, plan, plan_back, read_config
from airflow_provider_rayjobs.serve import ServeApplication, ServeDetails


def app(name: str, path: str = "m:app", **fields: Any) -> dict[str, Any]:
    return {"name": name, "import_path": path, **fields}


def details(*applications: ServeApplication, capacity: float | None = None) -> ServeDetails:
    return ServeDetails({one.name: one for one in applications}, capacity)


def there(name: str, path: str = "m:app", status: str = "RUNNING", **fields: Any) -> ServeApplication:
    return ServeApplication(name, status, config=app(name, path, **fields))


def planned(*wanted: dict[str, Any], on: ServeDetails, remove_others: bool = False) -> serve_config.Plan:
    return plan(read_config(applications=list(wanted)), on, remove_others=remove_others)


def test_what_is_given_is_not_changed_and_a_name_is_added() -> None:
    given = {"applications": ({"import_path": "m:app", "args": {"a": (1, 2)}},)}
    assert read_config(given) == {"applications": [app("default", args={"a": [1, 2]})]}
    assert given == {"applications": ({"import_path": "m:app", "args": {"a": (1, 2)}},)}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ([], "config must be a dict"),
        ("just a text", "config must be a dict"),
        ({}, "at least one application"),
        ({"applications": {"a": 1}}, "at least one application"),
        ({"applications": [1]}, r"applications\[0\] must be a dict"),
        ({"applications": [app("")]}, "name must be a non-empty string"),
        ({"applications": [app("a", args={"x": {1}})]}, "can't be written as JSON"),
        (
            {"applications": [app("a", deployments=[{"ray_actor_options": {"runtime_env": {"env_vars": 1}}}])]},
            r"applications\[0\].deployments\[0\].ray_actor_options: runtime_env",
        ),
    ],
)
def test_a_wrong_config_is_told_by_its_place(config: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        read_config(config)


def test_an_error_in_yaml_quotes_no_line() -> None:
    with pytest.raises(ValueError, match=r"not valid YAML \(line 2\)$"):
        read_config("a: 1\nb: 'a-secret")


def test_every_runtime_env_is_prepared() -> None:
    deployments = [{"name": "D"}, {"name": "E", "ray_actor_options": {"runtime_env": {"pip": ["b"]}}}]
    config = read_config(applications=[app("a", runtime_env={"pip": ["a"]}, deployments=deployments), app("b")])
    ready = serve_config.with_runtime_envs(config, lambda env: {"was": env})
    assert ready["applications"][0]["runtime_env"] == {"was": {"pip": ["a"]}}
    assert ready["applications"][0]["deployments"][1]["ray_actor_options"] == {"runtime_env": {"was": {"pip": ["b"]}}}
    assert config["applications"][0]["runtime_env"] == {"pip": ["a"]}


@pytest.mark.parametrize(
    ("runtime_env", "path"),
    [
        ({}, None),
        ({"working_dir": "s3://b/a.zip", "py_modules": ["gs://b/m.zip"], "pip": ["x"]}, None),
        ({"working_dir": "code"}, "code"),
        ({"py_modules": ["s3://b/m.zip", "/opt/m"]}, "/opt/m"),
    ],
)
def test_local_code_is_found(runtime_env: dict[str, Any], path: str | None) -> None:
    assert serve_config.local_path(runtime_env) == path


def test_a_plan_names_everything_that_it_does() -> None:
    on = details(
        there("same"),
        there("changed", "m:old"),
        there("failed", status="DEPLOY_FAILED"),
        there("other", "m:other"),
        there("going", status="DELETING"),
        ServeApplication("notebook", "RUNNING", imperative=True),
    )
    made = planned(app("new"), app("same"), app("changed"), app("failed"), on=on)
    assert str(made) == (
        "deploys new; changes changed; deploys again failed; leaves as deployed same; keeps other; "
        "does not touch (deployed with serve.run) notebook"
    )
    assert [one["name"] for one in made.body["applications"]] == ["new", "same", "changed", "failed", "other"]
    assert made.before == {"new": None, "changed": app("changed", "m:old")}
    assert made.is_needed
    assert not planned(app("same"), on=on).is_needed


def test_what_serve_adds_is_no_change() -> None:
    on = details(ServeApplication("a", "RUNNING", config={**app("a"), "logging_config": {"log_level": "INFO"}}))
    assert not planned(app("a"), on=on).is_needed
    assert planned(app("a", logging_config={"log_level": "DEBUG"}), on=on).is_needed


def test_the_capacity_stays_unless_it_is_given() -> None:
    on = details(capacity=20.0)
    assert planned(app("a"), on=on).body["target_capacity"] == 20.0
    given = plan(read_config({"applications": [app("a")], "target_capacity": None}), on, remove_others=False)
    assert given.body["target_capacity"] is None


def test_an_application_of_serve_run_can_be_replaced_but_not_put_back() -> None:
    on = details(ServeApplication("a", "RUNNING", imperative=True))
    made = planned(app("a"), on=on)
    assert (made.before, made.lost, made.is_needed) == ({}, ("a",), True)


def test_an_older_ray_that_does_not_tell_how_others_were_deployed() -> None:
    """Ray 2.8 deletes all that a config does not name."""
    on = details(ServeApplication("other", "RUNNING"))
    with pytest.raises(ValueError, match="'other' is on the cluster, and Ray does not tell its config"):
        planned(app("a"), on=on)
    assert "REMOVES other" in str(planned(app("a"), on=on, remove_others=True))


def test_a_rollback_leaves_alone_what_others_have_done_meanwhile() -> None:
    before = {"a": app("a", "m:old"), "new": None, "removed": app("removed"), "theirs": app("theirs", "m:old")}
    deployed = {name: digest_of(app(name, "m:new")) for name in ("a", "new", "theirs")}
    now = details(
        there("a", "m:new"), there("new", "m:new"), there("theirs", "m:very-new"), there("later"), capacity=50.0
    )
    body, back = plan_back(before, deployed, now)
    assert back == ["a", "new", "removed"]
    assert body == {
        "applications": [app("a", "m:old"), app("removed"), app("theirs", "m:very-new"), app("later")],
        "target_capacity": 50.0,
    }


def test_a_rollback_does_not_bring_back_what_others_have_removed_or_added() -> None:
    before = {"a": app("a", "m:old"), "removed": app("removed")}
    _, back = plan_back(before, {"a": digest_of(app("a", "m:new"))}, details(there("removed", "m:again")))
    assert back == []


def test_a_digest_depends_on_the_config_but_on_no_secret() -> None:
    def digest(value: str, **fields: Any) -> str:
        return digest_of(app("a", runtime_env={"env_vars": {"TOKEN": value}, "pip": ["x"]}, **fields))

    assert digest("a") == digest("b") != digest("a", args={"n": 1})
    assert digest_of(None) != digest_of({})


def test_all_values_of_variables_are_found() -> None:
    options = {"runtime_env": {"env_vars": {"B": "2"}}}
    config = read_config(
        applications=[
            app("a", runtime_env={"env_vars": {"A": "1"}}, deployments=[{"name": "D", "ray_actor_options": options}])
        ]
    )
    assert serve_config.variables_of(config) == ("1", "2")
