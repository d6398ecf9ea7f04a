"""Describes a cluster's nodes and free resources in a few words; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.answers import read_object
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.exceptions import RayJobsError

if TYPE_CHECKING:
    from airflow_provider_rayjobs.client.exchange import Flow


def describe_resources() -> Flow[str]:
    """
    Describe a cluster's nodes and free CPUs and GPUs in a few words (``GET /api/cluster_status``).

    The route belongs to the dashboard, not to the Jobs API (Ray 2.60, ``dashboard/modules/reporter/reporter_head.py``).
    So an error or an unexpected answer gives an empty string.
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
