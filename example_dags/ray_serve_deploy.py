"""Train a model, deploy it with Ray Serve, and roll back if it does not become healthy."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RayServeDeployOperator, RaySubmitJobOperator

with DAG(
    "ray_serve_deploy",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["ray"],
):
    train = RaySubmitJobOperator(
        task_id="train",
        entrypoint="python train.py --output s3://models/text-{{ ds }}",
        runtime_env={"working_dir": "s3://code/text.zip"},
        deferrable=True,
    )
    # The application's other versions are those of other runs: what a broken one replaced is put back.
    deploy = RayServeDeployOperator(
        task_id="deploy",
        applications=[
            {
                "name": "text",
                "route_prefix": "/text",
                "import_path": "text_app:app",
                "runtime_env": {
                    "working_dir": "s3://code/text.zip",
                    "env_vars": {"MODEL": "s3://models/text-{{ ds }}"},
                },
                "deployments": [{"name": "Model", "num_replicas": 2}],
            }
        ],
        deploy_timeout=1800,
        deferrable=True,
        pool="ray_serve",  # of one slot: only one task at a time deploys to a cluster
    )
    train >> deploy
