"""The trigger of assets: its arguments, its identity in Airflow, and that it never ends."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS, get_base_airflow_version_tuple

from airflow_provider_rayjobs.client.ended import EndedJob
from airflow_provider_rayjobs.tasks import job_ends
from tests.support.clients import cluster_at
from tests.unit.project.test_layout import PACKAGE, measured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_rayjobs.events import RayJobEventTrigger

needs_3_1 = pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="Airflow has no triggers of assets before 3.1")


def make(**arguments: Any) -> RayJobEventTrigger:
    from airflow_provider_rayjobs.events import RayJobEventTrigger

    return RayJobEventTrigger(**arguments)


@pytest.mark.skipif(AIRFLOW_V_3_1_PLUS, reason="this Airflow has triggers of assets")
def test_an_older_airflow_is_told_that_it_is_too_old() -> None:
    with pytest.raises(ImportError, match=r"airflow_provider_rayjobs\.events needs Airflow 3\.1 or newer"):
        make()


@needs_3_1
def test_it_survives_being_stored() -> None:
    trigger = make(metadata={"b": "1", "a": "2"}, submission_id="x-*", statuses=("STOPPED", "FAILED"), poll_interval=3)
    path, arguments = trigger.serialize()
    assert path == f"{PACKAGE}.events.RayJobEventTrigger"
    again = make(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)
    assert arguments["statuses"] == ["FAILED", "STOPPED"]
    assert arguments["metadata"] == ["a=2", "b=1"]
    assert again.metadata == {"a": "2", "b": "1"}
    assert not [value for value in arguments.values() if isinstance(value, dict)], "Airflow 3.2 can't read dicts"


@pytest.mark.skipif(get_base_airflow_version_tuple() < (3, 2), reason="older versions encode triggers elsewhere")
def test_airflow_takes_it_for_the_same_trigger_after_it_was_stored() -> None:
    """Otherwise each parse of the DAG file would replace it."""
    from airflow.models.trigger import Trigger
    from airflow.sdk import Asset, AssetWatcher
    from airflow.serialization.encoders import encode_trigger
    from airflow.triggers.base import BaseEventTrigger

    trigger = make(metadata={"team": "a"}, with_metadata=("x",))
    asset = Asset("a", watchers=[AssetWatcher(name="w", trigger=trigger)])
    encoded = encode_trigger(asset.watchers[0].trigger)
    stored = Trigger(classpath=encoded["classpath"], kwargs=encoded["kwargs"])
    assert BaseEventTrigger.hash(stored.classpath, stored.kwargs) == BaseEventTrigger.hash(
        encoded["classpath"], encoded["kwargs"]
    )


@needs_3_1
def test_other_arguments_make_another_watcher() -> None:
    assert make().watcher == make(statuses=["STOPPED", "SUCCEEDED", "FAILED"], metadata={}).watcher
    others = [
        make(ray_conn_id="other"),
        make(metadata={"a": "b"}),
        make(submission_id="a*"),
        make(statuses=["FAILED"]),
        make(with_metadata=["a"]),
        make(poll_interval=1.0),
    ]
    assert len({make().watcher, *(one.watcher for one in others)}) == 7


@needs_3_1
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"metadata": ["a"]}, r"metadata must be a dict of strings, or a list of texts .*, not \['a'\]"),
        ({"metadata": "a=b"}, "metadata must be a list of strings"),
        ({"metadata": {"a=b": "c"}}, "keys must not contain '='"),
        ({"metadata": {"a": 1}}, r"metadata\['a'\] must be a string"),
        ({"statuses": ["RUNNING"]}, "statuses must be a list of STOPPED, SUCCEEDED, FAILED"),
        ({"statuses": []}, "statuses must be a list of"),
        ({"statuses": "FAILED"}, "statuses must be a list of strings"),
        ({"with_metadata": "team"}, "with_metadata must be a list of strings"),
        ({"with_metadata": [str(number) for number in range(21)]}, "at most 20 keys"),
        ({"submission_id": ""}, "submission_id must be a string"),
        ({"ray_conn_id": None}, "ray_conn_id must be a string"),
        ({"poll_interval": 0}, "poll_interval is 0; it must be a positive number"),
    ],
)
def test_a_wrong_argument_is_told(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        make(**arguments)


@needs_3_1
def test_an_error_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_rayjobs import events

    turns = iter([RuntimeError("no such connection"), "lost", "told"])

    async def until_lost(self: Any) -> AsyncIterator[dict[str, Any]]:
        match next(turns):
            case Exception() as error:
                raise error
            case "told":
                yield {"submission_id": "a"}

    monkeypatch.setattr(job_ends.JobEnds, "until_lost", until_lost)
    monkeypatch.setattr(events, "START_DELAY", 0.0)
    monkeypatch.setattr(events, "RETRY_DELAY", 0.01)

    async def main() -> Any:
        return (await anext(make().run())).payload

    assert asyncio.run(asyncio.wait_for(main(), 10)) == {"submission_id": "a"}


@needs_3_1
def test_a_dag_file_with_it_loads_little() -> None:
    before = "from airflow.sdk import Asset, AssetWatcher; import airflow.triggers.base"
    statement = f"from {PACKAGE}.events import RayJobEventTrigger; RayJobEventTrigger(metadata={{'a': 'b'}})"
    loaded = measured("import airflow", {"events": (before, statement)})["events"]
    assert {name.split(".")[0] for name in loaded} <= {PACKAGE, "airflow", "packaging", *sys.stdlib_module_names}
    own = {name.removeprefix(f"{PACKAGE}.") for name in loaded if name.startswith(PACKAGE)}
    assert not {name for name in own if name.split(".")[0] in ("tasks", "following", "hooks")}


@needs_3_1
def test_the_page_tells_each_argument_and_what_an_event_has() -> None:
    from airflow_provider_rayjobs.events import RayJobEventTrigger
    from tests.unit.project.test_docs import own_arguments, rows

    entry = {"type": "SUBMISSION", "status": "FAILED", "submission_id": "a", "end_time": 1}
    job = EndedJob(1, "a", "FAILED")
    payload = job_ends.Choice({}, "*", ("FAILED",), ()).payload(job, entry, cluster_at("http://ray:8265"))
    added = {"ray_conn_id", "watcher", "mark"}
    assert own_arguments(RayJobEventTrigger) | payload.keys() | added == rows("events")
