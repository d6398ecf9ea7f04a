"""
Where Airflow keeps which ends of jobs a watcher has told: in a Variable, one for each watcher.

A trigger can't know whether Airflow has recorded its event as an asset event: the triggerer may be killed in between.
Nor can it look: Airflow keeps triggers from the database, and answers them nothing about asset events (3.1 to 3.3). So
the plugin's listener notes the end in the Variable, in the database transaction that records the event (:func:`note`).
After a crash, either both are there or none.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.threads import in_airflows_thread
from airflow_provider_rayjobs.following.told import Told

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Beginning of the keys of the Variables. The rest is a digest of the trigger's arguments.
PREFIX = "ray_jobs_ends_"

DESCRIPTION = "Which ends of Ray jobs a RayJobEventTrigger has told. Delete it to begin anew."

_KEY = re.compile(rf"{PREFIX}[0-9a-f]{{20}}")


async def read(key: str) -> Told | None:
    """
    Read the ends that a watcher has told; None if there is no Variable.

    :raises ValueError: the Variable has another value.
    """
    text = await in_airflows_thread(_get, key)
    try:
        told = None if text is None else Told.from_text(text)
    except ValueError as e:
        raise ValueError(f"the Variable {key} is malformed ({e}); delete it to begin anew") from None
    if told is not None:
        told.floor = min(told.floor, int(time.time() * 1000))
    return told


async def write(key: str, told: Told) -> None:
    """Create the Variable, or replace it."""
    await in_airflows_thread(_set, key, told.to_text())


def _get(key: str) -> str | None:
    from airflow.sdk import Variable

    return Variable.get(key, default=None)  # type: ignore[no-any-return]


def _set(key: str, text: str) -> None:
    from airflow.sdk import Variable

    Variable.set(key, text, description=DESCRIPTION)


def note() -> None:
    """
    Note the asset events of this provider's triggers that the current database transaction records.

    Airflow calls listeners in the transaction that records an asset event (``AssetManager.register_asset_change``). Its
    session is that of the thread.
    """
    from airflow import settings
    from airflow.models.asset import AssetEvent

    session: Any = settings.Session()  # type: ignore[misc]  # None before Airflow has begun
    # Airflow passes the asset, but not its event. The transaction is short, so the session has few objects.
    for event in list(session.identity_map.values()):
        if isinstance(event, AssetEvent) and (payload := _payload_of(event.extra)) is not None:
            _note(session, payload)


def _payload_of(extra: Any) -> Mapping[str, Any] | None:
    """Return the payload of an asset event if a trigger of this provider sent it."""
    # People may put anything into an event that they make over REST, but Airflow says that it is theirs.
    is_ours = isinstance(extra, dict) and extra.get("from_trigger") and not extra.get("from_rest_api")
    payload = extra.get("payload") if is_ours else None
    if not isinstance(payload, dict) or not isinstance(payload.get("watcher"), str):
        return None
    known = isinstance(payload.get("mark"), str) and isinstance(payload.get("end_time"), int)
    return payload if known and _KEY.fullmatch(payload["watcher"]) else None


def _note(session: Any, payload: Mapping[str, Any]) -> None:
    from airflow.models.variable import Variable
    from sqlalchemy import select

    # An error here must not spoil the transaction: then the event would be lost.
    with session.begin_nested():
        row = session.scalar(select(Variable).where(Variable.key == payload["watcher"]).with_for_update())
        if row is None:
            return
        told = Told.from_text(row.get_val())
        told.add(payload["mark"], payload["end_time"], time.time() * 1000)
        row.set_val(told.to_text())
