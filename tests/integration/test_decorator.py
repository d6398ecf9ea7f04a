"""``@task.ray_job`` on a real head: a function's value, its failures and its output."""

from __future__ import annotations

import json
import math
import resource
import uuid
import zipfile
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from hypothesis import HealthCheck, Phase, given, settings

from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator
from airflow_provider_rayjobs.exceptions import RayJobFailedError, RayJobResultError
from airflow_provider_rayjobs.text.safe_text import safe_value
from tests.support import faults
from tests.support.generated import VALUES, integers, same
from tests.support.ray_head import CLOUDPICKLE_3_SINCE
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.faulty_proxy import FaultyProxy
    from tests.support.ray_head import RayHead

BOTH = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


@pytest.fixture(autouse=True)
def _connection(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(ray_head.connection()))


def task(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tries:
    def make() -> RayJobDecoratedOperator:
        return RayJobDecoratedOperator(
            task_id="task", python_callable=function, op_args=args, op_kwargs={}, retries=3, **kwargs
        )

    return Tries(make, uuid.uuid4().hex)


def jobs_of(head: RayHead, tries: Tries) -> list[dict[str, Any]]:
    return [job for job in head.jobs() if (job["metadata"] or {}).get("airflow_run_id") == tries.run_id]


def echo(*values: Any) -> Any:
    return list(values)


def fits(value: Any) -> bool:
    """Return whether this Airflow can store a value's integers."""
    return not versions.INTEGERS_HAVE_64_BITS or all(-(2**63) <= number < 2**64 for number in integers(value))


@BOTH
def test_two_hundred_generated_values_come_back_equal(deferrable: bool) -> None:
    made: list[Any] = [float("nan"), -0.0, None, {"ü": ["\U0001f600", {"深": {"\ud800": "\x00"}}]}]

    @settings(
        max_examples=200,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(VALUES.filter(fits))
    def collect(value: Any) -> None:
        made.append(value)

    collect()
    assert len(made) >= 200
    came = task(echo, *made, deferrable=deferrable).run()
    assert len(came) == len(made)
    # Text that no database of Airflow can store is returned escaped.
    wrong = [(sent, back) for sent, back in zip(made, came, strict=True) if not same(safe_value(sent), back)]
    assert not wrong


@pytest.mark.parametrize("place", [lambda it: it, lambda it: {"rows": [(1, {it})]}], ids=["alone", "in a value"])
def test_an_integer_beyond_64_bits_is_rejected_if_airflow_can_not_store_it(place: Callable[[int], Any]) -> None:
    largest = [place(-(2**63)), place(2**64 - 1)]
    assert task(echo, *largest).run() == largest
    for number in (-(2**63) - 1, 2**64):
        tries = task(echo, place(number))
        if versions.INTEGERS_HAVE_64_BITS:
            with pytest.raises(RayJobResultError, match=r"holds an integer of more than 64 bits.*make it a string"):
                tries.run()
        else:
            assert tries.run() == [place(number)]


def test_ray_tasks_inside_have_what_the_function_defines() -> None:
    def scatter(count: int) -> dict[str, Any]:
        from dataclasses import dataclass

        import ray

        @dataclass
        class Part:
            number: int
            square: int

        @ray.remote
        def square(number: int) -> Part:
            from airflow_provider_rayjobs.progress import progress

            progress(number)  # has no effect in a Ray task
            return Part(number, number**2)

        ray.init()
        return {"parts": ray.get([square.remote(number) for number in range(count)])}

    assert task(scatter, 3).run() == {"parts": [{"number": number, "square": number**2} for number in range(3)]}


def test_nothing_is_a_value() -> None:
    def nothing() -> None:
        pass

    tries = task(nothing)
    assert tries.run() is None
    assert "progress" not in tries.ti.xcoms


def loud() -> str:
    import subprocess
    import sys

    noise = "for i in range(250_000): print('noise', i, flush=i % 1000 == 0)"
    others = [subprocess.Popen([sys.executable, "-c", noise]) for _ in range(3)]
    frame = '\n{"format": 1, "outcome": "value", "bytes": 3}\n"x"\n\x1erayjobs-progress 00000000 {"done": 1}\x1e'
    print("\n".join(frame if i % 50_000 == 0 else f"line {i}" for i in range(250_000)))
    assert not any(process.wait() for process in others)
    return "ü" * 500_000 + "x" * 500_000


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "kwargs", [{}, {"deferrable": True, "stream_logs": False}], ids=["followed", "deferrable, quiet"]
)
def test_a_million_lines_and_a_large_value(kwargs: Any) -> None:
    tries = task(loud, **kwargs)
    tries.lines = deque(maxlen=1000)
    before = peak_memory()
    assert tries.run() == "ü" * 500_000 + "x" * 500_000
    assert tries.count >= 1_000_000 or kwargs
    assert (grown := peak_memory() - before) < 100_000_000, f"{grown:,} bytes"


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_the_functions_own_traceback_fails_the_task() -> None:
    def fails(name: str) -> None:
        raise LookupError(f"no such shard: {name}")

    tries = task(fails, "ü")
    with pytest.raises(RayJobFailedError) as failed:
        tries.run()
    line = fails.__code__.co_firstlineno + 1
    text = str(failed.value)
    assert text.splitlines()[0] == "Ray job FAILED: LookupError: no such shard: ü"
    assert text.count("Traceback") == 0  # the job's log has it
    tail = "\n".join(failed.value.log_tail)
    assert f'File "{__file__}", line {line}, in fails' in tail
    assert 'raise LookupError(f"no such shard: {name}")' in tail
    assert "driver.py" not in tail


def test_a_process_that_exits_at_once_fails_with_its_exit_code() -> None:
    def leaves() -> None:
        import os

        print("last words")
        os._exit(3)

    with pytest.raises(RayJobFailedError, match="exit code 3") as failed:
        task(leaves).run()
    assert "last words" in failed.value.log_tail


@BOTH
def test_a_process_that_is_killed_fails_with_a_hint_at_memory(deferrable: bool) -> None:
    def killed() -> None:
        import os
        import signal

        from airflow_provider_rayjobs.progress import progress

        progress(1, 2, "before the end")
        os.kill(os.getpid(), signal.SIGKILL)

    tries = task(killed, deferrable=deferrable)
    with pytest.raises(RayJobFailedError, match=r"exit code (137|-9) \(SIGKILL: .*see entrypoint_memory"):
        tries.run()
    assert tries.ti.xcoms["progress"] == {"done": 1, "total": 2, "message": "before the end"}


def test_a_value_without_json_form_is_named() -> None:
    def odd() -> Any:
        return {"rows": [1, object()]}

    with pytest.raises(RayJobFailedError, match=r"the value that odd returned\['rows'\]\[1\] is of type object"):
        task(odd).run()


def test_an_end_without_a_value_is_an_error_and_the_next_try_runs_a_new_job(ray_head: RayHead, tmp_path: Path) -> None:
    def vanishes(flag: str) -> str:
        import os
        from pathlib import Path

        if not Path(flag).exists():
            Path(flag).touch()
            os._exit(0)
        return "second"

    tries = task(vanishes, str(tmp_path / "flag"))
    with pytest.raises(RayJobResultError, match="A file is not found"):
        tries.run()
    assert tries.run() == "second"
    assert [job["status"] for job in jobs_of(ray_head, tries)] == ["SUCCEEDED", "SUCCEEDED"]


def test_a_proxy_that_passes_the_jobs_api_only_is_named_with_the_route_that_is_missing(
    ray_head: RayHead, faulty_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(ray_head.connection(faulty_proxy.url)))
    faulty_proxy.on(faults.answer(404), path="/api/(?!jobs/|packages/|version).*")
    tries = task(echo, 1)
    with pytest.raises(
        AirflowFailException, match="does not serve GET /api/v0/logs/file; configure the proxy to pass it"
    ):
        tries.run()
    assert [job["status"] for job in jobs_of(ray_head, tries)] == ["SUCCEEDED"]


def test_the_next_try_after_a_lost_worker_returns_the_value_of_the_job_that_ran(
    ray_head: RayHead, tmp_path: Path
) -> None:
    def counts(file: str) -> int:
        from pathlib import Path

        with Path(file).open("a") as trace:
            trace.write("ran\n")
        return len(Path(file).read_text().splitlines())

    tries = task(counts, str(tmp_path / "trace"))
    assert tries.run() == 1
    assert tries.run() == 1  # as if the first try's worker had been lost after the job's end
    assert len(jobs_of(ray_head, tries)) == 1


@BOTH
def test_progress_is_shown_and_kept(deferrable: bool) -> None:
    def steps() -> None:
        import time

        from airflow_provider_rayjobs.progress import progress

        for done in range(60):
            progress(done + 1, 60, "shards")
            print("step", done)
            time.sleep(0.1)

    tries = task(steps, deferrable=deferrable)
    tries.run()
    last = {"done": 60, "total": 60, "message": "shards"}
    assert tries.ti.xcoms["progress"] == last
    shown = [line for line in tries.lines if line.startswith("Progress: ")]
    assert shown[-1] == "Progress: 60/60 (100 %), shards"
    assert 2 <= len(shown) <= 4
    assert not [line for line in tries.lines if "\x1e" in line]
    assert [line for line in tries.lines if line.startswith("step ")] == [f"step {done}" for done in range(60)]
    if deferrable:
        assert tries.events[-1]["progress"] == last

    quiet = task(steps, deferrable=deferrable, stream_logs=False)
    quiet.run()
    assert quiet.ti.xcoms["progress"] == last
    assert not [line for line in quiet.lines if line.startswith(("Progress", "step"))]


def test_a_value_beyond_the_limit_is_passed_through_the_result_path(tmp_path: Path) -> None:
    def large() -> str:
        return "x" * 17_000_000

    with pytest.raises(RayJobFailedError, match=r"17,000,002 bytes as JSON.*at most 16,777,216; .*result_path"):
        task(large).run()

    tries = task(large, result_path=f"file://{tmp_path}/results")
    assert tries.run() == "x" * 17_000_000
    (stored,) = (tmp_path / "results").iterdir()
    assert stored.name.startswith(f"{tries.ti.xcoms['submission_id']}.")


def test_arguments_are_passed_with_cloudpickle_if_requested(ray_head: RayHead) -> None:
    def use(call: Any, number: complex) -> str:
        return str(call(number))

    tries = task(use, lambda number: number * 2, 1j, serializer="cloudpickle")
    if ray_head.version >= CLOUDPICKLE_3_SINCE:
        assert tries.run() == "2j"
    else:  # Ray's copy of cloudpickle can't read functions that a later version has written
        with pytest.raises(RayJobFailedError, match="a matching cloudpickle"):
            tries.run()


def test_working_dir_and_py_modules_of_the_user_stay(ray_head: RayHead, tmp_path: Path) -> None:
    # The user's folder has modules with names of the driver's modules, which must not be imported instead.
    work = {"data.txt": "mine", "airflow_provider_rayjobs/__init__.py": "", "values.py": "", "driver.py": "1 / 0"}
    uris = [upload(ray_head, tmp_path, files) for files in (work, {"mine/__init__.py": "ANSWER = 42\n"})]

    def look() -> Any:
        from pathlib import Path

        import mine

        from airflow_provider_rayjobs.progress import progress

        progress(1)
        return mine.ANSWER, Path("data.txt").read_text(), sorted(path.name for path in Path().iterdir())

    tries = task(look, runtime_env={"working_dir": uris[0], "py_modules": [uris[1]], "env_vars": {"A": "b"}})
    names = sorted({name.partition("/")[0] for name in work})
    assert tries.run() == (42, "mine", names)
    assert tries.ti.xcoms["progress"]["done"] == 1


def upload(head: RayHead, folder: Path, files: dict[str, str]) -> str:
    import urllib.request

    name = f"_ray_pkg_{uuid.uuid4().hex}.zip"
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    url = f"{head.url}/api/packages/gcs/{name}"
    request = urllib.request.Request(url, data=(folder / name).read_bytes(), method="PUT")
    request.add_header("Authorization", f"Bearer {head.token}")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()
    return f"gcs://{name}"


def test_context_and_moments_arrive() -> None:
    def tell(when: datetime, ds: str | None = None) -> Any:
        return {"when": when, "next": when.replace(year=when.year + 1), "ds": ds, "ratio": float("inf")}

    when = datetime(2026, 1, 2, tzinfo=UTC)
    came = task(tell, when).run()
    assert came == {"when": when, "next": when.replace(year=2027), "ds": "2026-01-01", "ratio": math.inf}
