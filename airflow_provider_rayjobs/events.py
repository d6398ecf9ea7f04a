"""
Events for Airflow's assets: a DAG runs when a Ray job ends that Airflow did not submit (Airflow 3.1 and newer).

DAG files import this module, so it loads only what the class body needs; methods import the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_rayjobs.cluster.fields import DEFAULT_CONN_ID

if not TYPE_CHECKING and not AIRFLOW_V_3_1_PLUS:
    raise ImportError(
        "airflow_provider_rayjobs.events needs Airflow 3.1 or newer: older versions have no such triggers"
    )

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

__all__ = ["RayJobEventTrigger"]

#: Most keys of metadata that an event may have.
MOST_KEYS = 20

#: Seconds before the first list: what an earlier instance of the trigger has sent may not be recorded yet.
START_DELAY = 3.0

#: Seconds until the next attempt after an error. The connection is then read again.
RETRY_DELAY = 15.0


class RayJobEventTrigger(BaseEventTrigger):
    """
    Sends an event when a Ray job ends that this Airflow deployment did not submit, for an ``AssetWatcher``.

    The first list of jobs is where it begins: jobs that have ended before are not told. Each later end is told once,
    also over restarts of the triggerer, as long as the head has the job's record. Airflow keeps what was told in a
    Variable. All triggers of a triggerer that use the same connection share one list.

    Example::

        from airflow.sdk import DAG, Asset, AssetWatcher

        ended = RayJobEventTrigger(metadata={"team": "search"}, statuses=["SUCCEEDED"])
        index = Asset("search_index", watchers=[AssetWatcher(name="index_jobs", trigger=ended)])

        with DAG("publish_index", schedule=[index]):
            ...

    The event's payload, in ``extra["payload"]`` of the asset event, is JSON: ``submission_id``, ``status``,
    ``start_time`` and ``end_time`` (Unix milliseconds), ``driver_exit_code``, ``error_type``, ``message`` (of Ray, cut,
    with the secrets that Airflow knows masked), ``metadata`` (the keys that were asked for), ``ray_conn_id``; and
    ``watcher`` and ``mark``, by which Airflow notes that it was told.

    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param metadata: only jobs whose metadata has these values: a dict of strings, or a list such as
        ``["team=search"]``.
    :param submission_id: only jobs with such an id: a pattern in which ``*`` stands for any characters, ``?`` for one,
        and ``[ab]`` for one of several.
    :param statuses: only jobs that ended so: a list of ``SUCCEEDED``, ``FAILED`` and ``STOPPED``; by default all three.
    :param with_metadata: further keys of the metadata whose values are in the payload.
    :param poll_interval: seconds between two lists of jobs. They take at most 5 % of the head's time; with a long
        record there are fewer.
    :raises TypeError: an argument has a wrong type.
    :raises ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        ray_conn_id: str = DEFAULT_CONN_ID,
        metadata: Mapping[str, str] | Sequence[str] = (),
        submission_id: str = "*",
        statuses: Sequence[str] | None = None,
        with_metadata: Sequence[str] = (),
        poll_interval: float = 10.0,
    ) -> None:
        from airflow_provider_rayjobs.client.checks import check_duration
        from airflow_provider_rayjobs.client.ended import ENDED

        super().__init__()  # type: ignore[no-untyped-call]  # of Airflow
        check_duration("poll_interval", poll_interval)
        for name, text in (("ray_conn_id", ray_conn_id), ("submission_id", submission_id)):
            if not text or not isinstance(text, str):
                raise TypeError(f"{name} must be a string that is not empty, not {text!r}")
        self.ray_conn_id = ray_conn_id
        self.metadata = _pairs(metadata)
        self.submission_id = submission_id
        self.statuses = _names("statuses", ENDED if statuses is None else statuses)
        self.with_metadata = _names("with_metadata", with_metadata)
        self.poll_interval = float(poll_interval)
        if not self.statuses or not set(self.statuses) <= set(ENDED):
            raise ValueError(f"statuses must be a list of {', '.join(ENDED)}, not {statuses!r}")
        if len({*self.metadata, *self.with_metadata}) > MOST_KEYS:
            raise ValueError(f"metadata and with_metadata may have at most {MOST_KEYS} keys")

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments of the constructor, as JSON values."""
        names = ("ray_conn_id", "submission_id", "statuses", "with_metadata", "poll_interval")
        arguments = {name: getattr(self, name) for name in names}
        # Airflow 3.2 encodes dicts twice, and decodes them once.
        arguments["metadata"] = sorted(f"{key}={value}" for key, value in self.metadata.items())
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    @property
    def watcher(self) -> str:
        """The key of the Variable that has what was told: other arguments make another watcher."""
        from airflow_provider_rayjobs.tasks.told_ends import PREFIX

        arguments = json.dumps(self.serialize()[1], sort_keys=True)
        return PREFIX + hashlib.blake2b(arguments.encode(), digest_size=10).hexdigest()

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each end of a job, until the trigger is cancelled."""
        from airflow_provider_rayjobs.tasks.job_ends import Choice, JobEnds

        choice = Choice(self.metadata, self.submission_id, self.statuses, self.with_metadata)
        watching = JobEnds(self.ray_conn_id, choice, self.poll_interval, self.watcher, self.log)
        await asyncio.sleep(START_DELAY)
        while True:
            try:
                async with contextlib.aclosing(watching.until_lost()) as payloads:
                    async for payload in payloads:
                        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]  # of Airflow
            except Exception as e:  # noqa: BLE001 - Airflow would start the trigger again, at once and for ever
                self.log.error("The ends of Ray jobs can't be watched; trying again in %.0f s: %s", RETRY_DELAY, e)
            await asyncio.sleep(RETRY_DELAY)


def _pairs(metadata: object) -> dict[str, str]:
    """Return the wanted metadata as a dict."""
    from airflow_provider_rayjobs.client.plain_values import check_strings

    if not isinstance(metadata, dict):
        texts = _names("metadata", metadata)
        if wrong := [text for text in texts if "=" not in text]:
            raise ValueError(
                f"metadata must be a dict of strings, or a list of texts such as 'team=search', not {wrong}"
            )
        metadata = {key: value for key, _, value in (text.partition("=") for text in texts)}
    check_strings("metadata", metadata)
    if wrong := [key for key in metadata if "=" in key]:
        raise ValueError(f"metadata has the key {wrong[0]!r}; keys must not contain '='")
    return metadata


def _names(argument: str, value: object) -> list[str]:
    """Return a list of strings, sorted, so that the order in the DAG file makes no other trigger."""
    if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{argument} must be a list of strings, not {value!r}")
    return sorted(set(value))
