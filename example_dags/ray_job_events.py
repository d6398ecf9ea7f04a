"""Run when a Ray job ends that Airflow did not submit; Airflow before 3.1 has no such triggers."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

if AIRFLOW_V_3_1_PLUS:
    from airflow.sdk import Asset, AssetWatcher

    from airflow_provider_rayjobs.events import RayJobEventTrigger

    built = RayJobEventTrigger(
        metadata={"team": "search"}, submission_id="build-index-*", statuses=["SUCCEEDED"], with_metadata=["version"]
    )
    index = Asset("search_index", watchers=[AssetWatcher(name="built", trigger=built)])

    with DAG("ray_job_events", schedule=[index], catchup=False, tags=["ray"]):

        @task
        def publish(triggering_asset_events: Any = None) -> None:
            """Tell which jobs have ended: several, if they ended shortly after each other."""
            for events in triggering_asset_events.values():
                for event in events:
                    job = event.extra["payload"]
                    print(f"Publishing version {job['metadata'].get('version')} of {job['submission_id']}")

        publish()
