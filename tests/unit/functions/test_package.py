"""The package for the cluster, and the driver in it, run here by a plain Python without the provider."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import linecache
import math
import os
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import airflow_provider_rayjobs
from airflow_provider_rayjobs.exceptions import RayPackageTooLargeError
from airflow_provider_rayjobs.functions import package as function_package
from airflow_provider_rayjobs.functions import result as result_module
from airflow_provider_rayjobs.functions.package import build_package, check_function, describe_task, upload_package
from tests.support import answers
from tests.support.clients import FakeTime, RequestsClient, cluster_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.functions.result import Record
    from tests.support.scripted_server import ScriptedRay

FOLDER = Path(airflow_provider_rayjobs.__file__).parent
SHIPPED = ("functions/shipped/driver", "functions/shipped/values", "progress")
LIMIT = 100 * 2**20


class Ran:
    """One run of the driver, with its log where Ray has it."""

    def __init__(self, folder: Path, package: bytes, *, before: bytes | None = None) -> None:
        self.log = folder / "logs" / "job-driver-j1.log"
        self.log.parent.mkdir()
        result = self.log.with_suffix(".result")
        if before is not None:
            result.write_bytes(before)
        unpacked = folder / "unpacked"
        zipfile.ZipFile(io.BytesIO(package)).extractall(unpacked)
        (folder / "work").mkdir()
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(unpacked), "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            self.status = subprocess.run(
                [sys.executable, "-m", function_package.LAUNCHER, "f"],
                cwd=folder / "work",
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        self.output = self.log.read_text()
        self.result = result.read_bytes() if result.exists() else None

    @property
    def record(self) -> Record:
        assert self.result is not None, self.output
        return result_module.parse_record(self.result, "job")

    @property
    def value(self) -> Any:
        assert self.record.outcome == "value", self.output
        return result_module.value_of(self.record, "job")


def run(folder: Path, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Ran:
    return Ran(folder, build_package(describe_task(function, args, kwargs), LIMIT))


def test_the_function_gets_its_arguments_and_its_value_comes_back(tmp_path: Path) -> None:
    def f(
        a: Unknown,  # noqa: F821
        *,
        when: Unknown,  # noqa: F821
        text: str = """
  indented
text""",
    ) -> Unknown:  # type: ignore[name-defined]  # noqa: F821  # annotations are not evaluated on the cluster
        import os
        import sys

        from airflow_provider_rayjobs.progress import progress

        progress(1, 2, "half")
        assert "airflow" not in sys.modules
        print("printed")
        return {"a": a, "when": when, "text": text, "cwd": os.getcwd()}  # noqa: PTH109

    when = datetime(2026, 1, 2, tzinfo=UTC)
    ran = run(tmp_path, f, ("x", None), when=when)
    expected = {"a": ("x", None), "when": when, "text": "\n  indented\ntext", "cwd": str(tmp_path / "work")}
    assert ran.value == expected
    assert ran.record.progress == {"done": 1, "total": 2, "message": "half"}
    assert ran.status == 0
    assert "printed" in ran.output.splitlines()


def test_a_traceback_names_the_file_and_the_lines_of_the_dag(tmp_path: Path) -> None:
    def f() -> None:
        def inner() -> None:
            raise ValueError("no such shard")

        inner()

    ran = run(tmp_path, f)
    first = f.__code__.co_firstlineno
    assert ran.status == 1
    assert ran.record.outcome == "error"
    text = result_module.traceback_of(ran.record)
    lines = [line for line in text.splitlines() if set(line.strip()) - {"^", "~"}]
    assert lines == [
        "Traceback (most recent call last):",
        f'  File "{__file__}", line {first + 4}, in f',
        "    inner()",
        f'  File "{__file__}", line {first + 2}, in inner',
        '    raise ValueError("no such shard")',
        "ValueError: no such shard",
    ]
    assert text in ran.output


@pytest.mark.parametrize(("code", "status"), [("0", 1), ("3", 3), ("'text'", 1)])
def test_leaving_by_sys_exit_is_no_result(tmp_path: Path, code: str, status: int) -> None:
    def f(code: str) -> None:
        import ast
        import sys

        sys.exit(ast.literal_eval(code))

    ran = run(tmp_path, f, code)
    assert (ran.status, ran.record.outcome) == (status, "error")
    assert "SystemExit" in result_module.traceback_of(ran.record)


def test_a_process_that_ends_on_the_spot_leaves_no_result_not_even_an_older_one(tmp_path: Path) -> None:
    def f() -> None:
        import os

        os._exit(0)

    ran = Ran(tmp_path, build_package(describe_task(f, (), {}), LIMIT), before=b"{}")
    assert (ran.status, ran.result) == (0, None)


def test_a_value_without_json_form_is_an_error_that_names_it(tmp_path: Path) -> None:
    def f() -> Any:
        return {"a": [object()]}

    ran = run(tmp_path, f)
    assert ran.status == 1
    assert "the value that f returned['a'][0] is of type object" in result_module.traceback_of(ran.record)


def test_a_value_that_is_too_large_is_an_error_that_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def f() -> str:
        return "x" * 1000

    monkeypatch.setattr(function_package, "RESULT_LIMIT", 1000)
    text = result_module.traceback_of(run(tmp_path, f).record)
    assert "1,002 bytes as JSON" in text
    assert "result_path" in text


def test_a_large_value_goes_to_the_result_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def f() -> str:
        return "x" * 1000

    monkeypatch.setattr(function_package, "RESULT_LIMIT", 1000)
    store = tmp_path / "store"
    ran = Ran(tmp_path, build_package(describe_task(f, (), {}, result_path=f"file://{store}/"), LIMIT))
    assert ran.record.outcome == "stored"
    stored = (store / "j1.json").read_bytes()
    assert result_module.stored_at(f"file://{store}/", "j1") == f"file://{store}/j1.json"
    assert result_module.value_of(ran.record, "job", stored) == "x" * 1000
    with pytest.raises(result_module.RayJobResultError, match="damaged"):
        result_module.value_of(ran.record, "job", stored[:-1])


def test_a_function_that_prints_what_looks_like_anything_returns_its_value(tmp_path: Path) -> None:
    def f() -> int:
        import subprocess
        import sys

        noise = [subprocess.Popen([sys.executable, "-c", "for i in range(3000): print('noise', i)"]) for _ in range(4)]
        for _ in range(3000):
            print('{"format": 1, "outcome": "value", "bytes": 1}\n7\n\x1erayjobs-progress 0 {}\x1e')
        return sum(process.wait() for process in noise) + 41

    assert run(tmp_path, f).value == 41


def test_output_that_is_no_log_of_a_job_is_refused_before_the_function_runs(tmp_path: Path) -> None:
    def f() -> None:
        print("ran")

    package = build_package(describe_task(f, (), {}), LIMIT)
    zipfile.ZipFile(io.BytesIO(package)).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", function_package.LAUNCHER], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "not to the log of a Ray job" in done.stderr
    assert "ran" not in done.stdout.splitlines()


def test_the_files_of_a_user_are_not_touched() -> None:
    names = zipfile.ZipFile(io.BytesIO(build_package(b"{}", LIMIT))).namelist()
    assert {name.partition("/")[0].removesuffix(".py") for name in names} == {
        "airflow_ray_job",
        "airflow_ray_job.json",
        "airflow_provider_rayjobs",
    }


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

    task = json.loads(describe_task(f, (object(),), {"y": 1}, serializer="cloudpickle"))
    assert "args" not in task
    assert bytes.fromhex(task["pickled"])[:1] == b"\x80"
    with pytest.raises(TypeError, match=r"can't be pickled"):
        describe_task(f, ((i for i in "ab"),), {}, serializer="cloudpickle")


def test_a_package_that_ray_would_refuse_is_refused_here() -> None:
    with pytest.raises(ValueError, match="the cluster accepts at most 1,000; pass the path or URL"):
        build_package(b"{}", 1000)


def test_a_package_is_pinned_then_stored_under_a_name_of_its_own(scripted_ray: ScriptedRay) -> None:
    client = RequestsClient(cluster_at(scripted_ray), FakeTime())
    package = build_package(b"{}", LIMIT)
    assert package == build_package(b"{}", LIMIT)
    one, two = (client.run(upload_package(package, key)) for key in ("one", "two"))
    assert one != two
    sent = [(request.method, request.path, request.body) for request in scripted_ray.received]
    paths = [f"/api/packages/gcs/{uri.removeprefix('gcs://')}" for uri in (one, two)]
    assert sent == [(method, path, body) for path in paths for method, body in (("GET", b""), ("PUT", package))]
    client.close()


def test_a_package_that_a_proxy_refuses_says_what_to_do(scripted_ray: ScriptedRay) -> None:
    scripted_ray.script("PUT", "/api/packages/.*", answers.too_large(), forever=True)
    client = RequestsClient(cluster_at(scripted_ray), FakeTime())
    with pytest.raises(RayPackageTooLargeError, match=r"HTTP 413.*pass large values by reference"):
        client.run(upload_package(build_package(b"{}", LIMIT), "key"))
    client.close()
