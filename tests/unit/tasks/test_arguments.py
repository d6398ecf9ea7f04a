"""An operator's arguments: checked when the DAG is parsed, and again when they are rendered."""

from __future__ import annotations

import math
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayjobs.tasks import arguments
from tests.support.job_fields import RIGHT, operator


@pytest.mark.parametrize(
    "runtime_env",
    [
        {"pip": None, "conda": None, "env_vars": None, "config": None},
        {"pip": ["a"], "conda": None, "config": {"setup_timeout_seconds": -1, "eager_install": False}},
        {"image_uri": "i", "env_vars": {"A": ""}, "config": {}},
        {"excludes": ["*.log"], "worker_process_setup_hook": "a.b", "py_executable": "uv run"},
    ],
)
def test_what_ray_takes_passes(runtime_env: dict[str, Any]) -> None:
    operator(runtime_env=runtime_env, entrypoint_num_gpus=2.0, submission_id="a" * 240).check()


@pytest.mark.parametrize("secret", [{"A": 1}, {"A=": "x"}, ["A"], {1: "x"}])
def test_secret_variables_are_checked_without_being_shown(secret: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="secret_env_vars"):
        operator(secret_env_vars=secret).check()
    with pytest.raises(ValueError, match="NUL") as caught:
        operator(secret_env_vars={"A": "hunter2\0"}).check()
    assert "hunter2" not in str(caught.value)


def test_secret_variables_join_the_others_and_only_their_names_are_told() -> None:
    given = operator(runtime_env={"env_vars": {"A": "1"}, "pip": ["x"]}, secret_env_vars={"B": "2", "C": "3"})
    values = given.for_hook()
    assert values["runtime_env"] == {"env_vars": {"A": "1", "B": "2", "C": "3"}, "pip": ["x"]}
    assert values["metadata"] == {"airflow_secret_env_vars": "B,C"}
    assert given.runtime_env == {"env_vars": {"A": "1"}, "pip": ["x"]}
    alone = operator(secret_env_vars={"B": "2"}, metadata={"m": "n"}).for_hook()
    assert (alone["runtime_env"], alone["metadata"]["m"]) == ({"env_vars": {"B": "2"}}, "n")
    with pytest.raises(ValueError, match=r"both contain 'A'"):
        operator(runtime_env={"env_vars": {"A": "1"}}, secret_env_vars={"A": "2"}).for_hook()


@pytest.mark.parametrize("entrypoint", [None, [], [""], [" ", "x"]])
def test_an_operator_needs_a_command(entrypoint: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="entrypoint"):
        operator(entrypoint=entrypoint).check()


@pytest.mark.parametrize("name", ["poll_interval", "job_timeout", "pending_timeout"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "soon", True])
def test_durations_are_positive_numbers_of_seconds(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        operator(**{name: value}).check()


def test_a_poll_interval_is_needed() -> None:
    with pytest.raises(TypeError, match="poll_interval must be a number of seconds, not None"):
        operator(poll_interval=None).check()


@pytest.mark.parametrize("later", ["{{ params.x }}", "{% if x %}1{% endif %}", EmptyOperator(task_id="t").output])
@pytest.mark.parametrize("name", [*RIGHT, "job_timeout", "pending_timeout"])
def test_what_is_only_known_at_run_time_is_not_checked_before(name: str, later: Any) -> None:
    operator(**{name: later}).check()
    inside = {"metadata": {"k": later}, "runtime_env": {"env_vars": {"k": later}}, "entrypoint": ["x", later]}
    if name in inside:
        operator(**{name: inside[name]}).check()


def test_rendered_amounts_are_numbers_and_empty_ones_absent() -> None:
    given = operator(
        entrypoint_num_cpus="0.5", entrypoint_num_gpus=" 2 ", entrypoint_memory="", submission_id="", metadata=""
    )
    values = given.for_hook()
    amounts = {name: values[name] for name in ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory")}
    assert amounts == {"entrypoint_num_cpus": 0.5, "entrypoint_num_gpus": 2, "entrypoint_memory": None}
    assert (values["submission_id"], values["metadata"]) == (None, {})
    assert set(values) == set(RIGHT)


def test_rendered_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="entrypoint_memory must be a whole number"):
        operator(entrypoint_memory="1.5").for_hook()


@given(st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_number_survives_being_rendered(number: float) -> None:
    assert arguments.as_number(f" {number} ") == number
    assert arguments.as_number(number) is number
