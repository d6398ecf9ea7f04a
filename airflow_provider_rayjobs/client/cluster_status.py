"""How large a cluster is and how much of it is free, for people; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.answers import read_object
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.exceptions import RayJobsError

if TYPE_CHECKING:
    from airflow_provider_rayjobs.client.exchange import Flow


def describe_resources() -> Flow[str]:
    """
    Return a few words on a cluster's nodes and free CPUs and GPUs (``GET /api/cluster_status``).

    The route is the dashboard's own and not part of the Jobs API, so it is taken for what it gives (Ray 2.60,
    ``dashboard/modules/reporter/reporter_head.py``): the text is empty where it gives nothing.
    """
    try:
        response = yield Request("GET", "/api/cluster_status", repeatable=False)
        status = read_object(response)["data"]["clusterStatus"]
        report = status["loadMetricsReport"]
        nodes = sum(int(count) for _, count in report["nodeTypes"])
        parts = [f"{nodes} node{'' if nodes == 1 else 's'}"]
        parts += [_free(name, *report["usage"][name]) for name in ("CPU", "GPU") if name in report["usage"]]
    except (RayJobsError, KeyError, TypeError, ValueError, OverflowError):
        return ""
    return ", ".join(parts)


def _free(name: str, used: Any, total: Any) -> str:
    return f"{float(total) - float(used):g} of {float(total):g} {name}s free"
