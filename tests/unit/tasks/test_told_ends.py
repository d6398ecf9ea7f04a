"""What was told is noted in the transaction that records an asset event, or not at all."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_rayjobs.client.ended import EndedJob
from airflow_provider_rayjobs.following.told import Told, mark_of
from airflow_provider_rayjobs.tasks import told_ends
from airflow_provider_rayjobs.tasks.told_ends import PREFIX, note, read, write

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="Airflow has no triggers of assets before 3.1")

KEY = PREFIX + "0123456789abcdef0123"
JOB = EndedJob(1_700_000_000_000, "a", "SUCCEEDED")
PAYLOAD = {"watcher": KEY, "mark": mark_of(JOB), "end_time": JOB.end_time, "submission_id": "a"}


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The session of this thread, on a database with a watcher's Variable."""
    from airflow import settings
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.models.variable import Variable
    from sqlalchemy import create_engine
    from sqlalchemy.orm import scoped_session, sessionmaker

    tables: list[Any] = [kind.__table__ for kind in (AssetEvent, AssetModel, Variable)]
    engine = create_engine("sqlite://")
    AssetEvent.metadata.create_all(engine, tables=tables)
    found = scoped_session(sessionmaker(engine))
    monkeypatch.setattr(settings, "Session", found)
    found.add(Variable(key=KEY, val=Told().to_text()))
    found.commit()
    yield found()
    found.remove()
    engine.dispose()


def record(session: Any, extra: Any) -> None:
    """Record an asset event, as Airflow does, and call the listener."""
    from airflow.models.asset import AssetEvent

    event = AssetEvent(asset_id=1, extra=extra)
    session.add(event)
    session.flush()
    note()


def told(session: Any) -> Told:
    from airflow.models.variable import Variable
    from sqlalchemy import select

    row = session.scalar(select(Variable).where(Variable.key == KEY))
    return Told.from_text(row.get_val())


def test_an_event_and_its_note_are_recorded_together(session: Any) -> None:
    record(session, {"from_trigger": True, "payload": PAYLOAD})
    session.commit()
    assert told(session).knows(JOB)


def test_neither_is_recorded_if_the_transaction_fails(session: Any) -> None:
    record(session, {"from_trigger": True, "payload": PAYLOAD})
    session.rollback()
    assert not told(session).knows(JOB)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"from_trigger": True},
        {"from_trigger": True, "payload": "text"},
        {"payload": PAYLOAD},
        {"from_rest_api": True, "payload": PAYLOAD},
        {"from_rest_api": True, "from_trigger": True, "payload": PAYLOAD},
        *(
            {"from_trigger": True, "payload": {**PAYLOAD, **wrong}}
            for wrong in ({"watcher": "another variable"}, {"watcher": PREFIX}, {"watcher": 5}, {"mark": None})
        ),
        {"from_trigger": True, "payload": {**PAYLOAD, "end_time": "yesterday"}},
    ],
)
def test_other_events_note_nothing(session: Any, extra: dict[str, Any]) -> None:
    record(session, extra)
    session.commit()
    assert not told(session).knows(JOB)


def test_a_watcher_without_a_variable_is_left_alone(session: Any) -> None:
    record(session, {"from_trigger": True, "payload": {**PAYLOAD, "watcher": PREFIX + "f" * 20}})
    session.commit()
    assert not told(session).knows(JOB)


def test_an_error_does_not_spoil_the_transaction(session: Any) -> None:
    from airflow.models.asset import AssetEvent
    from airflow.models.variable import Variable
    from sqlalchemy import func, select

    session.scalar(select(Variable)).set_val("nonsense")
    session.commit()
    with pytest.raises(ValueError):  # noqa: PT011 - of JSON; Airflow logs errors of listeners
        record(session, {"from_trigger": True, "payload": PAYLOAD})
    session.commit()
    assert session.scalar(select(func.count()).select_from(AssetEvent)) == 1


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The Variables, as a trigger reads and writes them."""
    from airflow.sdk import Variable

    found: dict[str, str] = {}
    monkeypatch.setattr(Variable, "get", lambda key, default: found.get(key, default))  # noqa: PLW0108 - by name
    monkeypatch.setattr(Variable, "set", lambda key, text, description: found.update({key: text}))
    return found


def test_a_trigger_reads_what_it_wrote(variables: dict[str, str]) -> None:
    mine = Told()
    mine.add(mark_of(JOB), JOB.end_time, time.time() * 1000)

    async def main() -> Told | None:
        assert await read(KEY) is None
        await write(KEY, mine)
        return await read(KEY)

    found = asyncio.run(main())
    assert found is not None
    assert found.knows(JOB)
    assert list(variables) == [KEY]


def test_a_variable_that_someone_edited_is_named(variables: dict[str, str]) -> None:
    variables[KEY] = '{"floor": "x"}'
    with pytest.raises(ValueError, match=rf"the Variable {KEY} is malformed \(.*\); delete it to begin anew"):
        asyncio.run(read(KEY))
    assert told_ends.DESCRIPTION.endswith("Delete it to begin anew.")
