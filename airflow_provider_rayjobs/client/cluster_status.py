"""Reads a cluster's nodes and resources from the dashboard; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.answers import read_object
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.exceptions import RayJobsError

if TYPE_CHECKING:
    from airflow_provider_rayjobs.client.exchange import Flow


#: A node's resources: for each name, what is used and what there is in all.
Node = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class ClusterResources:
    """
    The resources of a cluster.

    :param nodes: the resources of each node that is alive.
    :param autoscales: whether an autoscaler adds nodes to this cluster; None if it is not known.
    :param starting: the resources of the nodes that it is starting.
    """

    nodes: tuple[Node, ...]
    autoscales: bool | None = None
    starting: Mapping[str, float] = field(default_factory=dict)


def _cluster_status() -> Flow[Any]:
    response = yield Request("GET", "/api/cluster_status", repeatable=False)
    return read_object(response)["data"]["clusterStatus"]


def cluster_resources() -> Flow[ClusterResources | None]:
    """Read a cluster's resources (``GET /api/cluster_status``); None if the answer can't be had or read."""
    try:
        status = yield from _cluster_status()
        nodes = tuple(_node(node) for node in status["loadMetricsReport"]["usageByNode"].values())
        report = status.get("autoscalerReport") or {}
        autoscales = _autoscales(report.get("nodeTypeMapping"))
        starting = {str(name): float(amount) for name, amount in (report.get("pendingResources") or {}).items()}
    except (RayJobsError, KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return None
    return ClusterResources(nodes, autoscales, starting)


def _node(usage: Mapping[str, Any]) -> Node:
    return {str(name): (float(used), float(total)) for name, (used, total) in usage.items()}


def _autoscales(types: Mapping[str, str] | None) -> bool | None:
    """Return whether nodes have types of an autoscaler; without one, Ray names the type of each node after its id."""
    return any(kind != f"node_{node}" for node, kind in types.items()) if types else None


def describe_resources() -> Flow[str]:
    """
    Describe a cluster's nodes and free CPUs and GPUs in a few words (``GET /api/cluster_status``).

    The route belongs to the dashboard, not to the Jobs API (Ray 2.60, ``dashboard/modules/reporter/reporter_head.py``).
    So an error or an unexpected answer gives an empty string.
    """
    try:
        status = yield from _cluster_status()
        report = status["loadMetricsReport"]
        nodes = sum(int(count) for _, count in report["nodeTypes"])
        parts = [f"{nodes} node{'' if nodes == 1 else 's'}"]
        parts += [_free(name, *report["usage"][name]) for name in ("CPU", "GPU") if name in report["usage"]]
    except (RayJobsError, KeyError, TypeError, ValueError, OverflowError):
        return ""
    return ", ".join(parts)


def _free(name: str, used: Any, total: Any) -> str:
    return f"{float(total) - float(used):g} of {float(total):g} {name}s free"
