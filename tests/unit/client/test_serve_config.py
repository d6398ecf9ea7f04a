"""Configs of Serve: what a plan sends and says, and what a rollback puts back."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayjobs.client import serve_config
from airflow_provider_rayjobs.client.serve_config import Rollback, digest_of, is_digest_of, plan, plan_back, read_config
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
        ({"applications": [app("a" * 201)]}, r"applications\[0\]: name has more than 200 characters"),
        ({"applications": [app("a\x1b")]}, r"applications\[0\]: name has .*control characters"),
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


@pytest.mark.parametrize("end", ["", "  args: {a: [1,\n"], ids=["valid", "not valid"])
def test_what_a_yaml_text_says_is_found_even_if_it_is_not_valid(end: str) -> None:
    text = f"applications:\n- name: a\n  runtime_env:\n    env_vars:\n      HF_TOKEN: 'hf_x'\n{end}"
    found = serve_config.parsed_or_lines(text)
    assert "HF_TOKEN" in str(found)
    assert "'hf_x'" in str(found)


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
    assert made.rollback.before == {"new": None, "changed": app("changed", "m:old")}
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
    assert (made.rollback.before, made.rollback.lost) == ({}, {"a": "it was deployed with serve.run"})
    assert made.is_needed


def test_an_older_ray_that_does_not_tell_how_others_were_deployed() -> None:
    """Ray 2.8 deletes all that a config does not name."""
    on = details(ServeApplication("other", "RUNNING"))
    with pytest.raises(ValueError, match="'other' is on the cluster, and Ray does not tell its config"):
        planned(app("a"), on=on)
    made = planned(app("a"), on=on, remove_others=True)
    assert "REMOVES other" in str(made)
    assert (made.rollback.before, made.rollback.lost) == ({"a": None}, {"other": "Ray does not tell its config"})


def test_a_rollback_leaves_alone_what_others_have_done_meanwhile() -> None:
    before = {"a": app("a", "m:old"), "new": None, "removed": app("removed"), "theirs": app("theirs", "m:old")}
    sent = {name: app(name, "m:new") for name in ("a", "new", "theirs")}
    now = details(
        there("a", "m:new"), there("new", "m:new"), there("theirs", "m:very-new"), there("later"), capacity=50.0
    )
    body, back = plan_back(Rollback(before, sent=sent), now)
    assert back == ["a", "new", "removed"]
    assert body == {
        "applications": [app("a", "m:old"), app("removed"), app("theirs", "m:very-new"), app("later")],
        "target_capacity": 50.0,
    }
    digests = {name: digest_of(config) for name, config in sent.items()}
    assert plan_back(Rollback.from_json(Rollback(before, digests=digests).to_json()), now) == (body, back)


def test_a_rollback_does_not_bring_back_what_others_have_removed_or_added() -> None:
    before = {"a": app("a", "m:old"), "removed": app("removed")}
    made = Rollback(before, sent={"a": app("a", "m:new")})
    assert plan_back(made, details(there("removed", "m:again"))) == (None, [])


def test_a_rollback_that_took_effect_is_not_sent_again() -> None:
    made = Rollback({"a": app("a", "m:old"), "new": None}, sent={"a": app("a", "m:new"), "new": app("new")})
    assert plan_back(made, details(there("a", "m:old"))) == (None, ["a", "new"])


@pytest.mark.parametrize(("now", "then"), [(10, 20.0), (30, 30)])
def test_a_rollback_puts_back_the_capacity_unless_somebody_else_has_changed_it(now: float, then: float) -> None:
    config = read_config({"applications": [app("a")], "target_capacity": 10})
    made = plan(config, details(capacity=20.0), remove_others=False)
    body, _ = plan_back(made.rollback, details(there("a"), there("other"), capacity=now))
    assert body == {"applications": [app("other")], "target_capacity": then}


def test_a_digest_depends_on_all_of_the_config_and_on_a_salt() -> None:
    def config(value: str, url: str = "s3://a/b.zip?v=1") -> dict[str, Any]:
        return app("a", runtime_env={"env_vars": {"TOKEN": value}, "working_dir": url})

    digest = digest_of(config("a"))
    assert is_digest_of(digest, config("a"))
    assert digest != digest_of(config("a"))
    assert not is_digest_of(digest, config("b"))
    assert not is_digest_of(digest, config("a", "s3://a/b.zip?v=2"))
    assert not is_digest_of(digest, None)
    assert not is_digest_of("", None)


@pytest.mark.parametrize(
    ("sent", "stored", "is_same", "may_be"),
    [
        ({"num_replicas": "2"}, {"num_replicas": 2}, True, True),
        ({"ray_actor_options": {"num_cpus": 1}}, {"ray_actor_options": {"num_cpus": 1.0}}, True, True),
        ({"num_replicas": "2"}, {"num_replicas": 3}, False, False),
        ({"user_config": {"n": "2"}}, {"user_config": {"n": 2}}, False, False),
        ({"user_config": {"n": 1}}, {"user_config": {"n": True}}, False, False),
        ({"max_ongoing_requests": 5}, {}, False, True),
        ({"num_replicas": 2}, {}, False, False),
        ({}, {"num_replicas": 2}, False, False),
        ({}, {"added_by_a_later_serve": 2}, False, True),
        ({"user_config": {"n": 1, "of_mine": 2}}, {"user_config": {"n": 1}}, False, False),
    ],
)
def test_what_serve_stores_of_a_config_is_recognized(
    sent: dict[str, Any], stored: dict[str, Any], is_same: bool, may_be: bool
) -> None:
    configs = [app("a", deployments=[{"name": "M", **fields}]) for fields in (sent, stored)]
    assert serve_config.is_same(*configs) is is_same
    assert serve_config.may_be_stored(*configs) is may_be


def test_a_hidden_variable_is_no_change_of_somebody_else() -> None:
    sent, stored = (app("a", runtime_env={"env_vars": {"A": value}}) for value in ("x", "<redacted>"))
    assert serve_config.may_be_stored(sent, stored)
    assert not serve_config.is_same(sent, stored)


@pytest.mark.parametrize(("status", "known"), [("RUNNING", True), ("DEPLOYING", False), ("DEPLOY_FAILED", False)])
def test_a_config_that_an_earlier_try_may_have_sent_is_not_the_previous_one(status: str, known: bool) -> None:
    wanted = app("a", deployments=[{"name": "M", "a_later_field": 1}])
    made = planned(wanted, on=details(there("a", status=status, deployments=[{"name": "M"}])))
    assert list(made.rollback.before) == (["a"] if known else [])
    assert list(made.rollback.lost) == ([] if known else ["a"])
    assert made.is_needed


def test_a_config_whose_variables_are_hidden_is_not_put_back() -> None:
    on = details(there("a", "m:old", runtime_env={"env_vars": {"A": "<redacted>"}}))
    made = planned(app("a"), on=on)
    assert (made.rollback.before, list(made.rollback.lost)) == ({}, ["a"])


def test_the_logging_config_of_the_whole_does_not_change_what_is_kept() -> None:
    logging = {"log_level": "DEBUG"}
    config = read_config({"applications": [app("a"), app("b", logging_config={})], "logging_config": logging})
    made = plan(config, details(there("other")), remove_others=False)
    assert made.body == {"applications": [app("a", logging_config=logging), app("b", logging_config={}), app("other")]}
    alone = plan(config, details(), remove_others=False)
    assert alone.body["logging_config"] == logging, "it also is that of Serve's controller"
    assert config["applications"][0] == app("a")


def test_a_second_attempt_keeps_what_was_there_before_the_first() -> None:
    first = Rollback({"a": app("a", "m:old")}, {"b": "why"}, target_capacity=10.0)
    second = Rollback({"a": app("a", "m:mine"), "b": app("b"), "c": None}, {"a": "why"}, target_capacity=20.0)
    both = second.after(first)
    assert both.before == {"a": app("a", "m:old"), "c": None}
    assert (both.lost, both.target_capacity) == ({"b": "why"}, 10.0)


def test_all_values_of_variables_are_found() -> None:
    options = {"runtime_env": {"env_vars": {"B": "2"}}}
    config = read_config(
        applications=[
            app("a", runtime_env={"env_vars": {"A": "1"}}, deployments=[{"name": "D", "ray_actor_options": options}])
        ]
    )
    assert serve_config.variables_of(config) == ("1", "2")
