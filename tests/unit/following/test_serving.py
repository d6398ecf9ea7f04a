"""A wait for applications: when it ends, what the log says, and the event that tells it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client.serve_config import digest_of
from airflow_provider_rayjobs.exceptions import RayAPIError, RayAuthError, RayClusterUnreachableError
from airflow_provider_rayjobs.following import serving
from airflow_provider_rayjobs.following.events import Outcome
from airflow_provider_rayjobs.following.serving import ServeEvent, ServeWaiter, ServeWatch
from airflow_provider_rayjobs.serve import ServeApplication, ServeDeployment, ServeDetails

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = {"name": "a", "import_path": "m:app"}


def waiter(*names: str, public_for: Callable[[Any], Any] = lambda _: str, **fields: Any) -> ServeWaiter:
    watch = ServeWatch(names, **{"deadline": time.time() + 60, **fields})
    return ServeWaiter(watch, "http://head", 0.3, logging.getLogger("serving"), public_for)


def details(*applications: ServeApplication) -> ServeDetails:
    return ServeDetails({one.name: one for one in applications})


def app(status: str, name: str = "a", **fields: Any) -> ServeApplication:
    return ServeApplication(name, status, **{"config": {**CONFIG, "name": name}, **fields})


def test_all_applications_must_have_a_target_status() -> None:
    wait = waiter("a", "b")
    assert wait.saw(details()) is None
    assert wait.saw(details(app("RUNNING"), app("DEPLOYING", "b"), app("DEPLOY_FAILED", "other"))) is None
    assert wait.saw(details(app("RUNNING"), app("UNHEALTHY", "b"))) is None
    event = wait.saw(details(app("RUNNING"), app("RUNNING", "b")))
    assert event == ServeEvent("http://head", Outcome.SUCCEEDED, "", {"a": "RUNNING", "b": "RUNNING"})


def test_each_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    wait = waiter("a")
    deployment = ServeDeployment("M", "UPDATING", "no node has a GPU", running=0, target=2)
    updating = app("DEPLOYING", deployments=(deployment,))
    for _ in range(3):
        wait.saw(details(updating))
    wait.saw(details(app("RUNNING", deployments=(ServeDeployment("M", "HEALTHY", running=2, target=2),))))
    assert caplog.messages == [
        "Application 'a' is DEPLOYING; deployment 'M' is UPDATING, 0 of 2 replicas: no node has a GPU",
        "Application 'a' is RUNNING",
    ]


def test_a_failure_tells_why_without_secrets_and_without_control_characters() -> None:
    wait = waiter("a", public_for=lambda configs: lambda text: text.replace("secret", "***") if configs else text)
    deployment = ServeDeployment("M", "DEPLOY_FAILED", "\x1b[31mlogin with secret at http://me:pw@store failed")
    event = wait.saw(details(app("DEPLOY_FAILED", message="m" * 9000 + " end", deployments=(deployment,))))
    assert event is not None
    assert event.outcome is Outcome.FAILED
    assert event.detail.endswith(
        "m end; deployment 'M' is DEPLOY_FAILED: \\x1b[31mlogin with *** at http://***@store failed"
    )
    assert event.detail.startswith("application 'a' is DEPLOY_FAILED; [...] mmm")
    assert len(event.detail) < 5000


def test_what_is_said_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    many = tuple(ServeDeployment(f"d{n}", "UPDATING", "e " * 4000) for n in range(2999))
    failed = ServeDeployment("broken", "DEPLOY_FAILED", "e " * 4000 + "no such model")
    seen = []

    def public(text: str) -> str:
        seen.append(text)
        return text

    wait = waiter("a", public_for=lambda _: public)
    event = wait.saw(details(app("DEPLOY_FAILED", deployments=(*many, failed))))
    assert event is not None
    assert event.detail.startswith("application 'a' is DEPLOY_FAILED; deployment 'broken' is DEPLOY_FAILED: [...] ")
    assert "no such model; deployment 'd0' is UPDATING" in event.detail
    assert event.detail.endswith("; and 2,990 more")
    assert max(map(len, [event.detail, *caplog.messages])) <= serving.LONGEST_REASON
    assert len(seen) <= 2 * serving.MOST_DEPLOYMENTS, "masking takes long"


def test_what_is_said_of_many_applications_is_bounded() -> None:
    names = [f"app-{n}" for n in range(100)]
    event = waiter(*names).saw(details(*(app("DEPLOY_FAILED", name, message="m" * 500) for name in names)))
    assert event is not None
    assert len(event.detail) <= serving.LONGEST_REASON
    assert event.detail.endswith(" [...]")


def test_errors_in_all_answers_are_a_failure_and_lost_contact_is_none() -> None:
    for errors, outcome in (
        ([RayAPIError("dead", status=500)] * 2, Outcome.FAILED),
        ([RayClusterUnreachableError("away"), RayAPIError("dead", status=500)], Outcome.UNREACHABLE),
        ([RayAPIError("dead", status=500), RayClusterUnreachableError("away")], Outcome.UNREACHABLE),
    ):
        wait = waiter("a")
        assert wait.failed(errors[0]) is None
        time.sleep(0.35)
        event = wait.failed(errors[1])
        assert event is not None
        assert event.outcome is outcome


def test_a_failure_may_be_what_is_waited_for() -> None:
    event = waiter("a", target_statuses=("DEPLOY_FAILED",)).saw(details(app("DEPLOY_FAILED")))
    assert event is not None
    assert event.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (None, "'a' was removed"),
        (app("DELETING", config=None), "'a' was removed"),
        (app("RUNNING", config={**CONFIG, "args": {"x": 1}}), "'a' has another config now"),
    ],
)
def test_a_deployment_of_somebody_else_ends_the_wait(now: ServeApplication | None, said: str) -> None:
    wait = waiter("a", deployed={"a": digest_of(CONFIG)})
    assert wait.saw(details(app("DEPLOYING"))) is None
    event = wait.saw(details(*([now] if now else [])))
    assert event is not None
    assert event.outcome is Outcome.LOST
    assert said in event.detail


def test_lost_contact_is_waited_for_and_then_given_up(caplog: pytest.LogCaptureFixture) -> None:
    wait = waiter("a")
    lost = RayClusterUnreachableError("refused")
    assert wait.failed(lost) is None
    assert wait.saw(details(app("DEPLOYING"))) is None
    assert wait.failed(lost) is None
    assert wait.pause() <= 0.3
    time.sleep(0.35)
    event = wait.failed(lost)
    assert event is not None
    assert event.outcome is Outcome.UNREACHABLE
    assert "Last error: refused" in event.detail
    assert len([line for line in caplog.messages if line.startswith("No contact")]) == 2


def test_refused_credentials_end_the_wait() -> None:
    event = waiter("a").failed(RayAuthError("no"))
    assert event is not None
    assert (event.outcome, event.detail) == (Outcome.STOPPED, "no")


def test_the_deadline_ends_the_wait() -> None:
    wait = waiter("a", "b", deadline=time.time() - 1)
    event = wait.saw(details(app("RUNNING"), app("DEPLOYING", "b")))
    assert event is not None
    assert event.outcome is Outcome.TIMEOUT
    assert event.detail == "gave up after 0 s: application 'b' is DEPLOYING"
    late = waiter("a", deadline=time.time() - 1).failed(RayClusterUnreachableError("refused"))
    assert late is not None
    assert late.detail == "gave up after 0 s: no answer"


def test_pauses_grow_to_the_interval() -> None:
    wait = waiter("a", poll_interval=1.0)
    pauses = [wait.pause() for _ in range(5)]
    assert pauses == sorted(pauses)
    assert (pauses[0] < 1, pauses[-1]) == (True, 1.0)


def test_an_event_survives_json() -> None:
    event = ServeEvent("http://head", Outcome.FAILED, "why\0", {"a": "DEPLOY_FAILED"})
    read = ServeEvent.from_json(event.to_json())
    assert read == ServeEvent("http://head", Outcome.FAILED, r"why\x00", {"a": "DEPLOY_FAILED"})


@pytest.mark.parametrize(
    "data", [None, {}, {"version": 9}, {"version": 1, "outcome": "x"}, {"version": 1, "statuses": 1}]
)
def test_an_event_of_another_version_is_told(data: Any) -> None:
    with pytest.raises(ValueError, match="must run the same version of airflow-provider-rayjobs"):
        ServeEvent.from_json(data)


def test_a_watch_is_json() -> None:
    watch = ServeWatch(("a",), 1.0, deployed={"a": "x"})
    assert watch.to_json() == {
        "applications": ["a"],
        "deadline": 1.0,
        "poll_interval": 5.0,
        "target_statuses": ["RUNNING"],
        "deployed": {"a": "x"},
    }
