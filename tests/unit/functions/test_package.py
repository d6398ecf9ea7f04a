"""The package for the cluster: which functions can be shipped, and what is shipped with them."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import linecache
import math
import os
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import airflow_provider_rayjobs
from airflow_provider_rayjobs.exceptions import RayPackageTooLargeError
from airflow_provider_rayjobs.functions.package import (
    LOOKED_FOR,
    Task,
    build_packages,
    check_function,
    describe_command,
    describe_task,
    upload_packages,
)
from airflow_provider_rayjobs.packaging.stores import ClusterStore
from tests.support import answers
from tests.support.clients import FakeTime, RequestsClient, cluster_at
from tests.support.shipped_functions import LIMIT, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.scripted_server import ScriptedRay

FOLDER = Path(airflow_provider_rayjobs.__file__).parent
SHIPPED = ("functions/shipped/driver", "functions/shipped/result_file", "functions/shipped/values", "job", "progress")


def packages(call: bytes = b"{}", shared: bytes = b"{}") -> Task:
    return build_packages(Task(shared, call), LIMIT)


def test_the_files_of_a_user_are_not_touched() -> None:
    function, call = ({*zipfile.ZipFile(io.BytesIO(package)).namelist()} for package in packages())
    assert {name.partition("/")[0].removesuffix(".py") for name in function} == {
        "airflow_ray_job",
        "airflow_ray_job.json",
        "airflow_provider_rayjobs",
    }
    assert call == {"airflow_ray_job_call.json"}


@pytest.mark.parametrize("module", SHIPPED)
def test_what_is_shipped_is_for_python_3_9_and_its_standard_library(module: str) -> None:
    tree = ast.parse((FOLDER / f"{module}.py").read_text(), feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {*sys.stdlib_module_names, "airflow_provider_rayjobs", "__future__"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "UTC"]


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    import functools

    @functools.wraps(function)
    def inner() -> Any:
        return function()

    return inner


async def asynchronous() -> None:
    pass


def test_what_can_t_be_shipped_is_refused_by_name() -> None:
    outside = 1

    def uses_outside() -> int:
        return outside

    @decorated
    def wrapped() -> None:
        pass

    for function, kind, said in (
        (uses_outside, ValueError, "uses outside of the enclosing function"),
        (wrapped, TypeError, "another decorator"),
        (asynchronous, TypeError, "asyncio.run"),
        (lambda: 1, TypeError, "lambda"),
        (len, TypeError, "len"),
        (print, TypeError, "print"),
    ):
        with pytest.raises(kind, match=said):
            check_function(function)


MOST = 3
abs = len  # noqa: A001 - on the cluster it would be another one


def uses_a_global(x: int = MOST) -> int:
    return x


def uses_one_among_others(a: int, b: int = 1, /, c: int = MOST + 1, *, d: int = 2) -> int:
    return a + b + c + d


def uses_one_by_keyword(*, a: int, b: object = json.dumps) -> object:
    return b


def uses_one_in_a_lambda(key: Any = lambda value: value + MOST) -> Any:
    return key


def uses_what_the_module_has_instead(f: Any = abs) -> Any:
    return f


@pytest.mark.parametrize(
    ("function", "parameter", "name"),
    [
        (uses_a_global, "x", "MOST"),
        (uses_one_among_others, "c", "MOST"),
        (uses_one_by_keyword, "b", "json"),
        (uses_one_in_a_lambda, "key", "MOST"),
        (uses_what_the_module_has_instead, "f", "abs"),
    ],
)
def test_a_default_that_the_cluster_does_not_have_is_refused(function: Any, parameter: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"{function.__name__}'s parameter {parameter} uses {name}, which the cluster"):
        check_function(function)


def test_a_default_of_the_function_around_it_is_refused() -> None:
    limit = MOST

    def inner(x: int = limit) -> int:
        return x

    with pytest.raises(ValueError, match=r"inner's parameter x uses limit, .*; write the value itself, or pass it"):
        check_function(inner)


def test_defaults_and_annotations_that_the_cluster_can_do_without(tmp_path: Path) -> None:
    def work(
        a: Unknown = 1024 * 1024,  # type: ignore[name-defined]  # noqa: F821
        b: list[Any] | None = None,
        *more: Any,
        c: Any = ("x", {"y": [1.5, True, b"z"]}),
        d: Any = float("inf"),
        e: Any = lambda value: [item * 2 for item in value],
        **rest: Any,
    ) -> Any:
        found: Any = [a, b, c, d, e([1])]
        return found

    check_function(work)
    assert run(tmp_path, work).value == [1024 * 1024, None, ("x", {"y": [1.5, True, b"z"]}), math.inf, [2]]


def test_a_function_without_source_is_refused() -> None:
    namespace: dict[str, Any] = {}
    exec("def f(x=1): pass", namespace)
    check_function(namespace["f"])
    with pytest.raises(ValueError, match="the source of f can't be read"):
        describe_task(namespace["f"], (), {})


def test_a_file_that_was_changed_after_it_was_read_is_not_shipped(tmp_path: Path) -> None:
    file = tmp_path / "dag.py"
    file.write_text("def f(a):\n    return a\n")
    spec = importlib.util.spec_from_file_location("changed", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    describe_task(module.f, (1,), {})

    for changed in ("x = 1\n", "def g(a): pass\n", "def f(b): pass\n", "x = (\n"):
        file.write_text(changed)
        os.utime(file, (1, len(changed)))
        linecache.checkcache()
        with pytest.raises((RuntimeError, ValueError), match=r"f can't be|changed after"):
            describe_task(module.f, (1,), {})


def test_cloudpickle_is_for_arguments_by_choice(tmp_path: Path) -> None:
    def f(x: Any) -> None:
        pass

    task = json.loads(describe_task(f, (object(),), {"y": 1}, serializer="cloudpickle").call)
    assert "args" not in task
    assert bytes.fromhex(task["pickled"])[:1] == b"\x80"
    with pytest.raises(TypeError, match=r"can't be pickled"):
        describe_task(f, ((i for i in "ab"),), {}, serializer="cloudpickle")


def test_a_package_that_ray_would_refuse_is_refused_here() -> None:
    with pytest.raises(ValueError, match="the cluster accepts at most 1,000; pass the path or URL"):
        build_packages(Task(b"{}", b"{}"), 1000)


@pytest.fixture
def store(scripted_ray: ScriptedRay) -> Iterator[ClusterStore]:
    client = RequestsClient(cluster_at(scripted_ray), FakeTime())
    yield ClusterStore(client.run, LIMIT, scripted_ray.url)
    client.close()


def requests_of(server: ScriptedRay) -> list[tuple[str, str]]:
    """Return what was asked and sent: the methods, and the names of the packages."""
    return [(request.method, request.path.rpartition("/")[2]) for request in server.received]


def names_of(uris: list[str]) -> list[str]:
    return [uri.removeprefix("gcs://") for uri in uris]


def test_the_calls_of_a_function_send_it_once(scripted_ray: ScriptedRay, store: ClusterStore) -> None:
    uris = [names_of(upload_packages(packages(b"[%d]" % number), store, "one")) for number in range(3)]
    ((function, first), (again, second), (_, third)) = uris
    assert function == again
    assert requests_of(scripted_ray) == [
        *(("GET", function), ("PUT", function), ("PUT", first)),
        *(("GET", function), ("PUT", second)),
        *(("GET", function), ("PUT", third)),
    ]
    assert scripted_ray.packages[first] == packages(b"[0]").call
    assert names_of(upload_packages(packages(shared=b"[]"), store, "one"))[0] != function


def test_commands_share_a_package_and_have_no_other(scripted_ray: ScriptedRay, store: ClusterStore) -> None:
    sent = [build_packages(describe_command(result_path=path), LIMIT) for path in (None, None, "s3://b/results")]
    (first,), (again,), (other,) = (names_of(upload_packages(packages, store, "one")) for packages in sent)
    assert first == again != other
    assert requests_of(scripted_ray) == [
        *(("GET", first), ("PUT", first)),
        ("GET", first),
        *(("GET", other), ("PUT", other)),
    ]


def test_equal_calls_of_two_jobs_are_two_packages(store: ClusterStore) -> None:
    """Ray deletes the package of a call with its job; nobody has looked for it, so it is not kept for another one."""
    (function, one), (again, two) = (upload_packages(packages(), store, key) for key in ("one", "two"))
    assert function == again
    assert one != two


def test_large_arguments_are_looked_for_so_that_ray_deletes_them_if_no_job_comes(
    scripted_ray: ScriptedRay, store: ClusterStore
) -> None:
    function, call = names_of(upload_packages(packages(os.urandom(LOOKED_FOR)), store, "one"))
    asked = [("GET", function), ("PUT", function), ("GET", call), ("PUT", call)]
    assert requests_of(scripted_ray) == asked


def test_a_package_that_a_proxy_refuses_says_what_to_do(scripted_ray: ScriptedRay, store: ClusterStore) -> None:
    scripted_ray.script("PUT", "/api/packages/.*", answers.too_large(), forever=True)
    with pytest.raises(RayPackageTooLargeError, match=r"HTTP 413.*pass large values by reference"):
        upload_packages(packages(), store, "key")
