"""``@task.ray_job`` as Airflow sees it: arguments, mapping, templates, and what is refused before anything is sent."""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import json
import re
import sys
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_overloads

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseOperator, task, task_decorator_factory
from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

from airflow_provider_rayjobs import get_provider_info
from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client import checks
from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator, ray_job
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.functions.shipped.driver import CALL_FILE
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.progress import stored
from tests.support import answers
from tests.support.tries import Tries

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay

AIRFLOW = get_base_airflow_version_tuple()


def score(shard: Any = None, ds: str | None = None, *, how: str = "") -> Any:
    return shard


def make(**kwargs: Any) -> RayJobDecoratedOperator:
    given = {"task_id": "task", "python_callable": score, "op_args": [], "op_kwargs": {}, **kwargs}
    return RayJobDecoratedOperator(**given)


@pytest.fixture(autouse=True)
def _connection(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": {"unreachable_timeout": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))


def test_the_decorator_is_registered_under_its_name() -> None:
    (declared,) = get_provider_info.get_provider_info()["task-decorators"]
    assert declared == {"name": "ray_job", "class-name": "airflow_provider_rayjobs.decorators.ray_job"}
    assert task_decorator_factory is not None
    assert RayJobDecoratedOperator.custom_operator_name == "@task.ray_job"


def test_a_call_makes_a_task_with_all_arguments_of_the_operator() -> None:
    with DAG("dag", schedule=None) as dag:

        @ray_job(
            entrypoint_num_cpus=2, job_timeout=60, deferrable=True, retries=2, runtime_env={"pip": ["x"]}, pool="p"
        )
        def work(shard: Any) -> dict[str, int]:
            """Do it."""
            return {"a": shard}

        work(7)
        work.override(task_id="other", entrypoint_num_cpus=3)("{{ ds }}")
    one, two = dag.get_task("work"), dag.get_task("other")
    assert isinstance(one, RayJobDecoratedOperator)
    assert (one.entrypoint_num_cpus, one.job_timeout, one.deferrable, one.retries) == (2, 60, True, 2)
    assert (one.pool, one.runtime_env, one.multiple_outputs, one.doc_md) == ("p", {"pip": ["x"]}, True, "Do it.")
    assert (two.entrypoint_num_cpus, tuple(two.op_args)) == (3, ("{{ ds }}",))
    assert one.entrypoint == ["python", "-m", "airflow_ray_job", "work"]
    assert {"op_args", "op_kwargs", "result_path", "runtime_env"} <= set(one.template_fields)
    two.render_template_fields({"ds": "2026-01-02"})
    assert tuple(two.op_args) == ("2026-01-02",)


def test_a_mapped_task_is_unmapped_with_its_arguments() -> None:
    with DAG("dag", schedule=None) as dag:
        decorated = ray_job(score, entrypoint_num_cpus=2)
        decorated.partial(how="x").expand(shard=[1, 2])
    mapped: Any = dag.get_task("score")
    made = mapped.unmap({"op_kwargs": {"shard": 2}})
    assert isinstance(made, RayJobDecoratedOperator)
    assert (made.op_kwargs, made.entrypoint_num_cpus) == ({"how": "x", "shard": 2}, 2)


def test_default_args_of_other_operators_do_no_harm() -> None:
    defaults = {"wait_for_completion": False, "entrypoint": "true", "ray_conn_id": "other"}
    with DAG("dag", schedule=None, default_args=defaults) as dag:
        ray_job(score)()
    made: Any = dag.get_task("score")
    assert (made.ray_conn_id, made.wait_for_completion, made.entrypoint[0]) == ("other", True, "python")


@pytest.mark.parametrize(
    ("kwargs", "kind", "said"),
    [
        ({"entrypoint": "true"}, TypeError, "does not take entrypoint"),
        ({"wait_for_completion": False}, TypeError, "does not take wait_for_completion"),
        ({"serializer": "pickle"}, ValueError, "one of json, cloudpickle"),
        ({"python_callable": lambda: 1}, TypeError, "lambda"),
        ({"job_timeout": -1}, ValueError, "job_timeout"),
        ({"op_args": [1, 2, 3]}, TypeError, "too many positional"),
    ],
)
def test_wrong_arguments_are_refused_when_the_dag_is_read(kwargs: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        make(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"op_kwargs": {"shard": {"when": [object()]}}}, "op_kwargs['shard']['when'][0] is of type object"),
        ({"op_args": [{1, 1j}]}, "op_args[0] is of type complex"),
        ({"result_path": "/tmp/x"}, "result_path must be a URL such as s3://…, gs://… or file://…, not '/tmp/x'"),
        ({"runtime_env": {"image_uri": "x"}}, "runtime_env['image_uri']"),
        ({"submission_id": "a/b"}, "submission_id"),
    ],
)
def test_what_is_wrong_at_run_time_is_refused_before_anything_is_sent(
    scripted_ray: ScriptedRay, kwargs: Any, said: str
) -> None:
    said = said.replace("an item", "").replace("op_args[0] is", "an item of op_args[0] is")
    with pytest.raises((AirflowFailException, ValueError)) as refused:
        Tries(lambda: make(**kwargs), "run").run()
    assert said in str(refused.value)
    assert scripted_ray.received == []


def test_parameters_named_as_the_context_get_it_unless_they_are_given() -> None:
    assert make()._keywords({"ds": "d", "ti": 1, "shard": 9}) == {"ds": "d", "shard": 9}
    assert make(op_args=[1, "mine"])._keywords({"ds": "d"}) == {}
    assert make(op_kwargs={"ds": "mine"})._keywords({"ds": "d"}) == {"ds": "mine"}


def test_the_rest_of_the_context_goes_where_a_function_takes_it() -> None:
    import lazy_object_proxy

    def work(shard: Any, ds: str, /, run_id: str, tag: str = "mine", **context: Any) -> Any:
        return context

    def fails() -> Any:
        raise AssertionError("asked for, though nobody wants it")

    when = datetime(2026, 1, 2, tzinfo=UTC)
    rest = {"ts": "t", "ds_nodash": "n", "params": {"a": [1]}, "logical_date": when, "outlets": []}
    context = {
        **rest,
        "ds": "d",
        "run_id": "r",
        "tag": "another",
        "prev_start_date_success": lazy_object_proxy.Proxy(lambda: when),
        "prev_end_date_success": lazy_object_proxy.Proxy(lambda: None),
        "var": lazy_object_proxy.Proxy(fails),
        "conf": {"fernet_key": "secret"},
        "inlets": [object()],
        "macros": object(),
        "dag_run": object(),
        "ti": 1,
    }
    rest |= {"prev_start_date_success": when, "prev_end_date_success": None}
    found = make(python_callable=work, op_args=[9, "x"])._keywords(context)
    assert found == {"run_id": "r", "ds": "d", **rest}  # the parameter `ds` is given, and takes no keyword
    assert type(found["prev_start_date_success"]) is datetime
    assert found["prev_end_date_success"] is None
    mine = make(python_callable=work, op_args=[9, "x"], op_kwargs={"ts": "mine", "outlets": 3})
    assert mine._keywords(context) == {"run_id": "r", "ds": "d", **rest, "ts": "mine", "outlets": 3}


def test_a_named_part_of_the_context_that_has_no_json_form_is_refused(scripted_ray: ScriptedRay) -> None:
    def work(inlets: Any, **context: Any) -> None:
        pass

    with pytest.raises(AirflowFailException, match=r"context\['inlets'\]\[0\] is of type object"):
        Tries(lambda: make(python_callable=work), "run").run(inlets=[object()], outlets=[object()])
    assert scripted_ray.received == []


def test_a_parameter_that_may_be_none_stays_none_where_the_context_has_no_json_form() -> None:
    def work(ti: Any = None, ds: str | None = None, *, dag_run: Any = None, params: Any = None) -> None:
        pass

    def needs(ti: Any) -> None:
        pass

    context = {"ti": object(), "ds": "d", "dag_run": [object()], "params": {"a": 1}}
    assert make(python_callable=work)._keywords(context) == {"ds": "d", "params": {"a": 1}}
    assert make(python_callable=work, serializer="cloudpickle")._keywords(context) == context
    with pytest.raises(TypeError) as refused:
        make(python_callable=needs)._keywords(context)
    assert str(refused.value) == (
        "context['ti'] is of type object, which has no JSON form; convert it to strings, numbers, lists and dicts"
    )
    assert make(python_callable=needs, serializer="cloudpickle")._keywords(context) == {"ti": context["ti"]}


def submitted(server: ScriptedRay) -> dict[str, Any]:
    (request,) = server.received_on("POST", "/api/jobs/")
    body: dict[str, Any] = request.json
    return body


def test_arguments_travel_in_a_package_beside_the_users_own(scripted_ray: ScriptedRay) -> None:
    own = {"working_dir": "s3://b/work.zip", "py_modules": ["s3://b/lib.zip"], "env_vars": {"A": "b"}, "pip": ["x"]}
    operator = make(runtime_env=own, op_kwargs={"shard": "s3cret"})
    scripted_ray.script("GET", "/api/jobs/[^/]+", refused(), forever=True)
    with pytest.raises(Exception, match=r"."):
        Tries(lambda: operator, "run").run()

    body = submitted(scripted_ray)
    *theirs, _, package = body["runtime_env"].pop("py_modules")
    assert theirs == ["s3://b/lib.zip"]
    rest = {key: value for key, value in own.items() if key != "py_modules"}
    assert body["runtime_env"] == {**rest, "pip": {"packages": ["x"], "pip_check": False}}
    assert operator.runtime_env == own
    assert body["entrypoint"] == "python -m airflow_ray_job score"
    assert "s3cret" not in json.dumps(body)
    content = zipfile.ZipFile(io.BytesIO(scripted_ray.packages[package.removeprefix("gcs://")]))
    assert json.loads(content.read(CALL_FILE))["kwargs"] == {"shard": "s3cret", "ds": "2026-01-01"}
    assert body["metadata"][keys.CALL] == hashlib.sha256(content.read(CALL_FILE)).hexdigest()
    checks.CHECKS["runtime_env"](body["runtime_env"])


def refused() -> Any:
    return answers.text(403, "no")


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("body", ["a web page", "a word", "JSON", "nothing"])
def test_a_result_whose_route_is_closed_fails_the_task_and_makes_no_second_job(
    status: int, body: str, scripted_ray: ScriptedRay
) -> None:
    """A later try would run the function anew, and could not read its result either."""
    closed = {
        "a web page": answers.html(status, "Not here"),
        "a word": answers.text(status, "no"),
        "JSON": answers.as_json({"error": "RBAC: access denied"}, status),
        "nothing": answers.text(status, ""),
    }[body]
    scripted_ray.new_job_reads = ["SUCCEEDED"]
    scripted_ray.script("GET", "/api/v0/logs/file.*", closed, forever=True)
    tries = Tries(make, "run")
    for number in (1, 2):
        with pytest.raises(
            AirflowFailException, match="does not serve GET /api/v0/logs/file; configure the proxy to pass it"
        ):
            tries.run()
        assert len(scripted_ray.received_on("POST", "/api/jobs/")) == 1
        assert len(scripted_ray.received_on("GET", "/api/v0/logs/file.*result.*")) == number


@pytest.mark.parametrize("outcome", [Outcome.STOPPED, Outcome.TIMEOUT, Outcome.LOST, Outcome.UNREACHABLE])
def test_the_last_progress_is_an_xcom_however_the_job_ended(outcome: Outcome) -> None:
    for report in ({"done": 3, "total": 4, "message": "x"}, {"done": 3, "total": 1e40, "message": "x"}):
        event = JobEvent("j1", "http://ray", outcome, progress=report).to_json()
        context = Tries(make, "run").context()
        with pytest.raises(RuntimeError, match="j1"):
            make().execute_complete(context, event)
        assert context["ti"].xcoms["progress"] == stored(report)


def test_the_plain_operator_still_returns_the_submission_id() -> None:
    event = JobEvent("j1", "http://ray", Outcome.SUCCEEDED).to_json()
    made = RaySubmitJobOperator(task_id="task", entrypoint="true")
    assert made.execute_complete(Tries(make, "run").context(), event) == "j1"


def parameters_of(function: Any) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters
    return {name: parameter for name, parameter in found.items() if name not in ("self", "kwargs")}


def union_of(parameter: inspect.Parameter) -> set[str]:
    """Return the parts of an annotation, in the words of strict type checkers."""
    text = re.sub(r"\bdict\b(?!\[)", "dict[str, Any]", parameter.annotation.replace("collections.abc.", ""))
    return set(text.split(" | "))


def test_it_is_the_decorator_that_airflow_finds() -> None:
    assert task.ray_job is ray_job


@pytest.mark.skipif(AIRFLOW < (3, 3), reason="this Airflow's operators have other arguments")
def test_the_typed_decorator_has_the_arguments_of_the_operators() -> None:
    """Names, kinds, annotations and defaults; those of Airflow's own operators without the defaults."""
    _, with_arguments = get_overloads(ray_job)
    typed = parameters_of(with_arguments)
    own = parameters_of(RayJobDecoratedOperator.__init__) | parameters_of(RaySubmitJobOperator.__init__)
    for name in ("python_callable", "entrypoint", "wait_for_completion", "read_result"):
        del own[name]
    multiple_outputs = typed.pop("multiple_outputs")
    assert str(multiple_outputs) == "multiple_outputs: 'bool | None' = None"  # as in the types of Airflow's decorators
    airflows = parameters_of(BaseOperator.__init__)
    for name in ("multiple_outputs", "sla"):  # Airflow 3 has no SLAs
        del airflows[name]
    assert {name: typed[name] for name in own} == own
    assert typed.keys() == own.keys() | airflows.keys()
    for name, parameter in airflows.items():
        assert typed[name].replace(annotation=None) == parameter.replace(default=..., annotation=None)
        assert union_of(typed[name]) == union_of(parameter)


def test_its_signature_needs_no_types_of_the_newest_airflow() -> None:
    module = sys.modules[RayJobDecoratedOperator.__module__]
    nodes = [*ast.walk(ast.parse(inspect.getsource(module)))]
    imported = {name.name for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}
    assert not {"FParams", "FReturn"} & imported, "Airflow 2.11 has them elsewhere; type checkers report each call then"
    assert "Task" in {node.name for node in nodes if isinstance(node, ast.ClassDef)}
