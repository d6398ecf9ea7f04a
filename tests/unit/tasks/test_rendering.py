"""Templates give the same job, whether Airflow renders them to texts or to Python's own objects."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, redact

from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator, ray_job
from airflow_provider_rayjobs.operators import RayDeleteJobOperator, RayStopJobOperator, RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor, RayJobSensor
from airflow_provider_rayjobs.tasks import arguments
from tests.support.rendering import BOTH, CONTEXT, Instance, rendered


def job(*, native: bool, entrypoint: Any = "true", **fields: Any) -> dict[str, Any]:
    """Return the job that a task submits."""
    task = rendered(lambda: RaySubmitJobOperator(task_id="t", entrypoint=entrypoint, **fields), native=native)
    return task._arguments.for_hook()


#: Texts, and what arrives of them.
TEXTS = {
    "8080": "8080",
    "3.10": "3.10",
    "007": "007",
    "1e5": "1e5",
    "True": "True",
    "None": "None",
    '{"a": 1}': '{"a": 1}',
    "[1, 2]": "[1, 2]",
    "'quoted'": "'quoted'",
    "line\n": "line\n",
    " 1": " 1",
    "1 + 1": "1 + 1",
    "{{ n }}": "3",
    "{{ half }}": "0.5",
    "{{ version }}": "3.10",
    "{{ digits }}": "007",
    "{{ yes }}": "True",
    "{{ nothing }}": "None",
    "{{ json }}": '{"a": 1}',
    "{{ words }}": "['python', 'a b.py', 7]",
    "{{ pairs | tojson }}": '{"a": 1, "b": true, "c": "3.10"}',
    "{{ 3 }}": "3",
    "1{{ n }}": "13",
    "[{{ n }}]": "[3]",
    "{% if yes %}1.0{% endif %}": "1.0",
    "{% if nothing %}1{% endif %}": "",
    "{# nothing #}5": "5",
}


@BOTH
@pytest.mark.parametrize(("written", "text"), TEXTS.items(), ids=map(repr, TEXTS))
def test_a_text_stays_a_text(native: bool, written: str, text: str) -> None:
    sent = job(
        native=native,
        entrypoint=["echo", written],
        runtime_env={"env_vars": {"A": written}, "pip": ["x", f"y{written}"], "conda": None},
        secret_env_vars={"B": written},
        metadata={"m": written},
        entrypoint_label_selector={"l": written},
    )
    assert sent["entrypoint"] == ["echo", text]
    assert sent["runtime_env"] == {"env_vars": {"A": text, "B": text}, "pip": ["x", f"y{text}"], "conda": None}
    assert {**sent["metadata"], "airflow_secret_env_vars": ""} == {"m": text, "airflow_secret_env_vars": ""}
    assert sent["entrypoint_label_selector"] == {"l": text}


@BOTH
def test_the_fields_that_are_one_text(native: bool) -> None:
    for written, text in (("12345", "12345"), ("{{ digits }}", "007"), ("{{ n }}", "3"), ("{{ version }}", "3.10")):
        sent = job(native=native, entrypoint=written, submission_id=written)
        assert (sent["entrypoint"], sent["submission_id"]) == (text, text)
    for written in ("{{ nothing }}", "{% if nothing %}a{% endif %}"):
        assert job(native=native, submission_id=written)["submission_id"] is None
    for kind in (RaySubmitJobOperator, RayStopJobOperator):
        more = {"submission_id": "{{ digits }}", **({"entrypoint": "x"} if kind is RaySubmitJobOperator else {})}
        operator = rendered(lambda: kind(task_id="t", ray_conn_id="{{ n }}", **more), native=native)  # noqa: B023
        assert (operator.ray_conn_id, operator.submission_id) == ("3", "007")
    sensor = rendered(
        lambda: RayJobSensor(task_id="t", submission_id="{{ digits }}", target_statuses="{{ 'RUNNING' }}"),
        native=native,
    )
    assert (sensor.submission_id, sensor.target_statuses) == ("007", ["RUNNING"])


@BOTH
def test_numbers_are_read_from_texts(native: bool) -> None:
    sent = job(
        native=native,
        entrypoint_num_cpus="{{ half }}",
        entrypoint_num_gpus="{{ n }}",
        entrypoint_memory="{{ n * 1024 }}",
        entrypoint_resources={"TPU": "{{ n }}", "x": "0.5"},
    )
    assert (sent["entrypoint_num_cpus"], sent["entrypoint_num_gpus"], sent["entrypoint_memory"]) == (0.5, 3, 3072)
    assert sent["entrypoint_resources"] == {"TPU": 3, "x": 0.5}
    operator = rendered(
        lambda: RaySubmitJobOperator(
            task_id="t", entrypoint="x", job_timeout="{{ n }}", pending_timeout="{{ nothing }}"
        ),
        native=native,
    )
    assert arguments.as_number(operator.job_timeout) == 3
    assert arguments.as_number(operator.pending_timeout) is None


def test_a_template_that_names_an_object_gives_it() -> None:
    """Only where Airflow renders to objects; the numbers in it, where texts belong, are texts."""
    sent = job(
        native=True,
        entrypoint="{{ words }}",
        runtime_env="{{ env }}",
        metadata="{{ pairs }}",
        entrypoint_resources="{{ resources }}",
        entrypoint_label_selector="{{ pairs }}",
        secret_env_vars="{{ pairs }}",
    )
    texts = {"a": "1", "b": "True", "c": "3.10"}
    assert sent["entrypoint"] == ["python", "a b.py", "7"]
    assert sent["runtime_env"] == {
        "env_vars": {"N": "3", "T": "3.10", **texts},
        "pip": ["x==1"],
        "config": {"setup_timeout_seconds": 60},
    }
    assert sent["metadata"] == {**texts, "airflow_secret_env_vars": "a,b,c"}
    assert sent["entrypoint_resources"] == {"TPU": 2}
    assert sent["entrypoint_label_selector"] == texts


def test_a_template_in_a_runtime_env_gives_what_its_place_takes() -> None:
    sent = job(
        native=True,
        runtime_env={
            "env_vars": "{{ pairs }}",
            "pip": {"packages": "{{ [version, 'y'] }}", "pip_check": "{{ yes }}", "pip_version": "=={{ version }}"},
            "py_modules": "{{ ['s3://b/' ~ version ~ '.zip'] }}",
            "working_dir": "{{ nothing }}",
            "config": {"setup_timeout_seconds": "{{ n * 100 }}", "log_files": ["8080"]},
            "my_plugin": {"amount": "{{ n }}", "text": "8080"},
        },
    )
    assert sent["runtime_env"] == {
        "env_vars": {"a": "1", "b": "True", "c": "3.10"},
        "pip": {"packages": ["3.10", "y"], "pip_check": True, "pip_version": "==3.10"},
        "py_modules": ["s3://b/3.10.zip"],
        "working_dir": None,
        "config": {"setup_timeout_seconds": 300, "log_files": ["8080"]},
        "my_plugin": {"amount": 3, "text": "8080"},
    }


def test_a_text_that_reads_as_a_dict_is_one_where_a_dict_belongs() -> None:
    assert job(native=True, metadata="{'a': '{{ version }}', 'n': {{ n }}}")["metadata"] == {"a": "3.10", "n": "3"}


@BOTH
def test_the_arguments_of_a_function_are_rendered_as_airflow_does(native: bool) -> None:
    def work(one: Any, two: Any) -> None:
        pass

    operator = rendered(
        lambda: ray_job(work, runtime_env={"env_vars": {"A": "8080"}})("{{ n }}", two={"x": "5"}).operator,
        native=native,
    )
    assert tuple(operator.op_args) == ((3,) if native else ("3",))
    assert operator.op_kwargs == {"two": {"x": 5 if native else "5"}}
    assert operator.runtime_env == {"env_vars": {"A": "8080"}}
    assert operator.entrypoint[-1] == "work"


@BOTH
def test_braces_of_ones_own(native: bool) -> None:
    own = {"variable_start_string": "<<", "variable_end_string": ">>"}
    with DAG("own", schedule=None, render_template_as_native_obj=native, jinja_environment_kwargs=own):
        operator = RaySubmitJobOperator(task_id="t", entrypoint=["<< n >>", "{{ n }}"])
    operator.render_template_fields({"ti": Instance(), **CONTEXT})
    assert operator.entrypoint == ["3", "{{ n }}"]


@BOTH
def test_a_template_that_fails_is_named_and_shows_no_secret(native: bool, caplog: pytest.LogCaptureFixture) -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="nowhere"):
        rendered(
            lambda: RaySubmitJobOperator(
                task_id="t", entrypoint="x", secret_env_vars={"A": "lit-5ad1c0", "B": "{{ nowhere }}"}
            ),
            native=native,
        )
    assert "lit-5ad1c0" not in caplog.text


# What Airflow can't store


def function(*args: Any, **kwargs: Any) -> None:
    pass


FUNCTION = {"python_callable": function, "op_args": [], "op_kwargs": {}}
WITH_FIELDS: dict[Any, dict[str, Any]] = {
    RaySubmitJobOperator: {"entrypoint": "true", "read_result": True},
    RayStopJobOperator: {"submission_id": "a"},
    RayDeleteJobOperator: {"submission_id": "a"},
    RayJobSensor: {"submission_id": "a"},
    RayClusterSensor: {},
    RayJobDecoratedOperator: FUNCTION,
}
#: Fields that take no text.
IN_FIELDS = {"op_args": lambda text: [1, {text}], "op_kwargs": lambda text: {"shard": {"x": (text,)}}}


@BOTH
@pytest.mark.parametrize("nasty", ["a\0b", "a\ud800"])
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (kind, field)
        for kind in WITH_FIELDS
        for field in kind.template_fields
        if kind is not RayJobDecoratedOperator or field not in ("entrypoint", *RaySubmitJobOperator.template_fields)
    ],
)
def test_no_rendered_field_holds_what_airflow_can_not_store(native: bool, kind: Any, field: str, nasty: str) -> None:
    def make(text: str) -> Any:
        value = IN_FIELDS.get(field, str)(text)
        return kind(task_id="t", **{**WITH_FIELDS[kind], field: value})

    words = f"Template field '{field}' of task 't' must not contain NUL or lone surrogates"
    with pytest.raises(AirflowFailException, match=f"^{words}"):
        rendered(lambda: make("{{ nasty }}"), native=native, nasty=nasty)
    rendered(lambda: make("{{ nasty }}"), native=native, nasty=r"a\x00b")


@BOTH
def test_no_part_of_a_rendered_field_holds_what_airflow_can_not_store(native: bool) -> None:
    for fields in (
        {"runtime_env": {"env_vars": {"A": "{{ nasty }}"}}},
        {"runtime_env": {"pip": ["x", "{{ nasty }}"]}},
        {"metadata": {"a\0": "x"}},
        {"entrypoint": ["echo", "{{ nasty }}"]},
        {"entrypoint_resources": {"a\ud800": "1"}},
    ):
        (field,) = fields
        with pytest.raises(AirflowFailException, match=f"^Template field '{field}' of task 't' must not contain NUL"):
            rendered(
                functools.partial(RaySubmitJobOperator, task_id="t", **{"entrypoint": "true", **fields}),
                native=native,
                nasty="\0",
            )


def test_a_mapped_task_is_refused_as_well() -> None:
    with DAG("mapped", schedule=None):
        mapped = RayStopJobOperator.partial(task_id="t").expand(submission_id=["a", "b"])
    operator = mapped.unmap({**mapped.partial_kwargs, "task_id": "t", "submission_id": "a\0"})
    with pytest.raises(AirflowFailException, match=r"^Template field 'submission_id' of task 't' must not contain NUL"):
        operator.render_template_fields({})


# Secrets


def render(operator: Any, **context: Any) -> Any:
    """Render as a worker does before it stores the rendered fields; return the operator that runs."""
    context = {"ti": type("Instance", (), {"map_index": 0})(), **context}
    operator.render_template_fields(context)
    return operator


def test_rendered_variables_are_masked_before_airflow_stores_them() -> None:
    with DAG("masking", schedule=None):
        operator = RaySubmitJobOperator(
            task_id="job",
            entrypoint="run {{ plain }}",
            runtime_env={"env_vars": {"MY_PASSWORD": "{{ one }}", "LITERAL_TOKEN": "lit-71bd05", "SIZE": "big-71bd05"}},
            secret_env_vars={"DSN": "{{ two }}"},
        )
    render(operator, one="one-71bd05", two="two-71bd05", plain="plain-71bd05")
    assert operator.runtime_env["env_vars"]["MY_PASSWORD"] == "one-71bd05"
    assert operator.secret_env_vars == {"DSN": "two-71bd05"}
    assert redact("one-71bd05 two-71bd05 lit-71bd05") == "*** *** ***"
    assert redact("big-71bd05 plain-71bd05") == "big-71bd05 plain-71bd05"
    # Where Airflow cuts a long field, it knows no keys, or (3.0) masks by the field's name only.
    assert "71bd05" not in str(redact(operator.secret_env_vars, "secret_env_vars"))


def test_a_template_that_fails_shows_no_literal_secret(caplog: pytest.LogCaptureFixture) -> None:
    with DAG("masking_failure", schedule=None):
        operator = RaySubmitJobOperator(
            task_id="job",
            entrypoint="x",
            runtime_env={"env_vars": {"A_TOKEN": "lit-c0ffee", "B": "{{ 1 / 0 }}"}},
        )
    with pytest.raises(ZeroDivisionError):
        render(operator)
    assert redact("lit-c0ffee") == "***"


def test_printed_fields_hide_what_is_secret() -> None:
    with DAG("printing", schedule=None):
        operator = RaySubmitJobOperator(
            task_id="job",
            entrypoint="x",
            runtime_env={"env_vars": {"A_TOKEN": "{{ one }}", "SIZE": "large"}},
            secret_env_vars={"DSN": "{{ two }}"},
        )
    render(operator, one="one-4d1e", two="two-4d1e")
    # As `airflow tasks render` prints them.
    assert str(operator.secret_env_vars) == "{'DSN': '***'}"
    assert f"{operator.runtime_env}" == "{'env_vars': {'A_TOKEN': '***', 'SIZE': 'large'}}"
    assert json.loads(json.dumps(operator.runtime_env)) == {"env_vars": {"A_TOKEN": "one-4d1e", "SIZE": "large"}}
    assert copy.deepcopy(operator.secret_env_vars) == {"DSN": "two-4d1e"}
    assert str(copy.deepcopy(operator.secret_env_vars)) == "{'DSN': '***'}"


@pytest.mark.parametrize("field", ["entrypoint", "runtime_env", "metadata", "secret_env_vars"])
@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_rendered_field_that_no_database_takes_is_refused_by_name(field: str, text: str) -> None:
    values = {
        "entrypoint": "echo {{ text }}",
        "runtime_env": {"env_vars": {"A": "{{ text }}"}},
        "metadata": {"a": "{{ text }}"},
        "secret_env_vars": {"A": "{{ text }}"},
    }
    with DAG("unsafe", schedule=None):
        operator = RaySubmitJobOperator(task_id="job", **{"entrypoint": "true", field: values[field]})
    with pytest.raises(AirflowFailException, match=f"Template field '{field}' of task .* must not contain NUL"):
        render(operator, text=text)
