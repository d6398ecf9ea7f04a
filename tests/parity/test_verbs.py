"""All methods but the submission through Ray's SDK and through the hook: the same results, the same errors."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.parity.sides import Side
    from tests.support.ray_head import RayHead

_OUTPUT = "echo one; echo 'zwölf 🎈' >&2; printf 'no end'"
_DRIVER = """python -c 'import ray; ray.init(log_to_driver=False); print("driver")'"""


class Calls:
    """Calls methods through both sides."""

    def __init__(self, head: RayHead, sides: list[Side]) -> None:
        self.head = head
        self._sides = sides

    def each(self, verb: str, *arguments: str, address: str = "") -> list[dict[str, Any]]:
        """Return both results: the SDK's, then the hook's."""
        return [side.ask(address or self.head.url, verb, *arguments) for side in self._sides]

    def same(self, verb: str, *arguments: str, address: str = "") -> Any:
        """Return the result, which must be the same for both."""
        sdk, hook = self.each(verb, *arguments, address=address)
        assert "error" not in sdk, sdk
        assert hook == sdk
        return sdk["value"]

    def fail(self, verb: str, *arguments: str) -> str:
        """Return the built-in class of the error that both must raise."""
        sdk, hook = self.each(verb, *arguments)
        assert sdk["error"][0] in hook["error"], (sdk, hook)
        return str(sdk["error"][0])


def identity(job: dict[str, Any]) -> tuple[Any, Any]:
    """Return the ids that identify a job in a list, which also has drivers that were not submitted."""
    return job["submission_id"], job["job_id"]


@pytest.fixture
def calls(parity_head: RayHead, sides: list[Side]) -> Calls:
    return Calls(parity_head, sides)


@pytest.fixture(scope="module")
def ended(parity_head: RayHead) -> str:
    """An ended job, with all possible details."""
    job = parity_head.submit(
        _OUTPUT,
        submission_id="parity-ended",
        metadata={"owner": "me"},
        runtime_env={"env_vars": {"A": "b"}},
    )
    parity_head.wait_job(job)
    return job


@pytest.fixture(scope="module")
def driver(parity_head: RayHead) -> dict[str, Any]:
    """The details of an ended job that was a Ray driver, and so has its own job id."""
    return parity_head.wait_job(parity_head.submit(_DRIVER, submission_id="parity-driver"), timeout=120)


def test_details(calls: Calls, ended: str) -> None:
    details = calls.same("get_job_info", ended)
    assert (details["status"], details["metadata"]) == ("SUCCEEDED", {"owner": "me"})
    assert calls.same("get_job_status", ended) == "SUCCEEDED"


def test_details_of_a_driver(calls: Calls, driver: dict[str, Any]) -> None:
    """For a job without metadata or runtime_env, the SDK returns None; docs/parity.md says why the hook does not."""
    sdk, hook = (each["value"] for each in calls.each("get_job_info", driver["submission_id"]))
    assert (sdk["metadata"], sdk["runtime_env"]) == (None, None)
    assert hook == {**sdk, "metadata": {}, "runtime_env": {}}
    assert sdk["driver_info"] is not None


@pytest.mark.parametrize("verb", ["get_job_info", "get_job_status", "get_job_logs", "tail_job_logs", "stop_job"])
def test_a_job_is_found_by_its_job_id_too(calls: Calls, driver: dict[str, Any], verb: str) -> None:
    for answer in calls.each(verb, driver["job_id"]):
        assert answer in calls.each(verb, driver["submission_id"])
        assert "value" in answer


def test_logs(calls: Calls, ended: str) -> None:
    logs = calls.same("get_job_logs", ended)
    assert "one\nzwölf 🎈\nno end" in logs
    assert calls.same("tail_job_logs", ended) == logs


def test_list(calls: Calls, ended: str) -> None:
    sdk, hook = ({str(identity(job)): job for job in each["value"]} for each in calls.each("list_jobs"))
    assert any(ended in key for key in sdk)
    assert set(hook) == set(sdk)
    for key, job in sdk.items():
        assert hook[key] == {**job, "metadata": job["metadata"] or {}, "runtime_env": job["runtime_env"] or {}}


def test_address(calls: Calls) -> None:
    assert calls.same("get_address") == calls.head.url
    assert calls.same("get_address", address=f"{calls.head.url}/") == calls.head.url


def test_version(calls: Calls) -> None:
    """The SDK returns the version of the REST API; docs/parity.md says why the hook does not."""
    sdk, hook = calls.each("get_version")
    assert sdk["value"].isdecimal()
    assert hook["value"].count(".") == 2


@pytest.mark.parametrize("verb", ["get_job_info", "get_job_status", "get_job_logs", "stop_job", "delete_job"])
@pytest.mark.parametrize("submission_id", ["parity-unknown", "99000000", "parity unknown", "parity/unknown"])
def test_unknown_job(calls: Calls, verb: str, submission_id: str) -> None:
    assert calls.fail(verb, submission_id) == "RuntimeError"


def test_tail_of_an_unknown_job(calls: Calls) -> None:
    """The SDK raises an error of aiohttp."""
    sdk, hook = calls.each("tail_job_logs", "parity-unknown")
    assert (sdk["error"][0], hook["error"][0]) == ("Exception", "RuntimeError")


def test_life_of_a_job(calls: Calls, sides: list[Side]) -> None:
    assert [step for side in sides for step in _live(calls.head, side)] == 2 * [
        ("get_job_status", "RUNNING"),
        ("delete_job", "RuntimeError"),
        ("stop_job", True),
        ("get_job_status", "STOPPED"),
        ("stop_job", False),
        ("delete_job", True),
        ("delete_job", "RuntimeError"),
        ("get_job_info", "RuntimeError"),
        ("stop_job", "RuntimeError"),
        ("get_job_logs", "RuntimeError"),
    ]


def _live(head: RayHead, side: Side) -> list[tuple[str, Any]]:
    """Call the methods during the life of a job through one side; return the results."""
    job = head.submit("exec sleep 1000", submission_id=f"parity-life-{uuid.uuid4().hex}")
    head.wait_job(job, until={"RUNNING"}, timeout=120)
    steps: list[tuple[str, Any]] = []

    def step(verb: str) -> None:
        answer = side.ask(head.url, verb, job)
        families = answer.get("error", [])
        steps.append((verb, answer["value"] if not families else next(f for f in families if f == "RuntimeError")))

    for verb in ("get_job_status", "delete_job", "stop_job"):
        step(verb)
    head.wait_job(job, timeout=60)
    for verb in ("get_job_status", "stop_job", "delete_job", "delete_job", "get_job_info", "stop_job", "get_job_logs"):
        step(verb)
    return steps


@pytest.mark.parametrize("verb", ["list_jobs", "get_version"])
def test_unreachable_cluster(calls: Calls, verb: str) -> None:
    sdk, hook = calls.each(verb, address="http://127.0.0.1:9")
    assert sdk["error"][0] == "ConnectionError"
    assert "ConnectionError" in hook["error"]
