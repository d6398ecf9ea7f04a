"""A DAG that runs when a Ray job ends that nobody submitted here; Airflow before 3.1 has no such triggers."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

if AIRFLOW_V_3_1_PLUS:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import Asset, AssetWatcher

    from airflow_provider_rayjobs.events import RayJobEventTrigger

    ended = RayJobEventTrigger(
        ray_conn_id="ray_events", metadata={"team": "events"}, with_metadata=["number"], poll_interval=1.0
    )
    asset = Asset("rj_ends", watchers=[AssetWatcher(name="ends", trigger=ended)])

    with DAG("rj_events", schedule=[asset], catchup=False):
        EmptyOperator(task_id="done")
