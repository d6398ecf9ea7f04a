"""A job tells OpenLineage what it reads and writes, as a part of its task's run."""

from airflow.providers.common.compat.sdk import DAG, task

with DAG("ray_job_lineage", schedule=None) as dag:

    @task.ray_job(
        runtime_env={"pip": ["openlineage-python"]},
        openlineage_inject_parent_job_info=True,  # which run the job belongs to
        openlineage_inject_transport_info=True,  # where Airflow sends its own events
    )
    def clean_orders() -> str:
        """Return the id of the task's run, which the event names as the parent."""
        import os
        from datetime import UTC, datetime

        from openlineage.client import OpenLineageClient
        from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import parent_run
        from openlineage.client.uuid import generate_new_uuid

        # ... here the job reads and writes ...

        namespace, name, run_id = os.environ["OPENLINEAGE_PARENT_ID"].rsplit("/", 2)
        parent = parent_run.ParentRunFacet(
            job=parent_run.Job(namespace=namespace, name=name), run=parent_run.Run(runId=run_id)
        )
        OpenLineageClient().emit(
            RunEvent(
                eventType=RunState.COMPLETE,
                eventTime=datetime.now(UTC).isoformat(),
                run=Run(runId=str(generate_new_uuid()), facets={"parent": parent}),
                job=Job(namespace=namespace, name=f"{name}.clean"),
                inputs=[InputDataset(namespace="s3://lake", name="raw/orders")],
                outputs=[OutputDataset(namespace="s3://lake", name="clean/orders")],
                producer="https://example.com/pipelines",
            )
        )
        return run_id

    clean_orders()
