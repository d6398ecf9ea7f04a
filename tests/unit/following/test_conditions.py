"""What the sensors wait for: each look is a flow, answered here without a server."""

from __future__ import annotations

import pytest

from airflow_provider_rayjobs.exceptions import RayJobLostError, RayJobNotFoundError
from airflow_provider_rayjobs.following.conditions import JobReaches
from airflow_provider_rayjobs.jobs import JobDetails


def test_a_sensors_job_that_is_gone_is_told_with_the_node_where_it_may_still_run() -> None:
    fields = {"driver_agent_http_address": "http://10.0.0.7:52365", "driver_node_id": "ab12"}
    condition = JobReaches("a", ["SUCCEEDED"])
    gone = RayJobNotFoundError("http://ray: there is no job a")
    assert condition.missing(gone) is False
    assert condition.reached(JobDetails.from_json({"type": "SUBMISSION", "status": "RUNNING", **fields})) is False
    with pytest.raises(RayJobLostError, match=r"may still run on node 10\.0\.0\.7 \(node id ab12\)") as caught:
        condition.missing(gone)
    assert (caught.value.may_run, caught.value.node_id, caught.value.node_ip) == (True, "ab12", "10.0.0.7")
