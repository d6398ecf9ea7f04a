"""
Explains why a job is PENDING: what it asks for, what the cluster has, and whether it can ever be had.

A job's supervisor actor needs all the resources of the entrypoint on one node (``job_manager.py`` of Ray 2.60).
"""

from __future__ import annotations

import json
import time
from itertools import chain, repeat
from typing import TYPE_CHECKING

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.text.safe_text import one_line, safe_text, without_logins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_rayjobs.client.cluster_status import ClusterResources, Node
    from airflow_provider_rayjobs.jobs import JobDetails

#: Seconds after which the reason of a wait is logged: at first, and then between two lines.
EXPLAIN_AFTER = (10.0, 20.0, 30.0, 60.0, 120.0, 300.0)

#: Maximum lengths, in characters: of the resources in a job's metadata, which anyone may have written, and of Ray's
#: message.
MAX_RESOURCES = 5_000
MAX_MESSAGE = 500

#: Keys of a ``runtime_env`` for which the node has to install or download something.
_SET_UP = ("pip", "uv", "conda", "working_dir", "py_modules", "container", "image_uri")


def wanted_resources(job: JobDetails) -> dict[str, float]:
    """Return the resources that a job of this provider asked for, by Ray's names; empty if it asked for none."""
    text = job.metadata.get(keys.RESOURCES, "{}")
    try:
        wanted = json.loads(text if len(text) <= MAX_RESOURCES else "{}")
        return {str(name): float(amount) for name, amount in wanted.items() if float(amount) > 0}
    except (AttributeError, TypeError, ValueError, RecursionError):  # anyone can write metadata
        return {}


def why_pending(job: JobDetails, cluster: ClusterResources | None, public: Callable[[str], str] = str) -> str:
    """
    Return why a job is PENDING, as one line that can be shown.

    :param job: the job.
    :param cluster: the cluster's resources; None if they are not known.
    :param public: removes the job's secrets from text.
    """

    def shown(text: str) -> str:
        return safe_text(without_logins(public(text)))

    reason = _reason(wanted_resources(job), cluster, sets_up=any(job.runtime_env.get(key) for key in _SET_UP))
    said = one_line(public(job.message or ""), MAX_MESSAGE)
    return "; ".join(part for part in (shown(reason), f"Ray: {said}" if said else "") if part)


def _reason(wanted: Mapping[str, float], cluster: ClusterResources | None, *, sets_up: bool) -> str:
    set_up = "its runtime environment is being set up" if sets_up else ""
    if not wanted:
        return set_up
    needs = f"needs {_listed(wanted)} on one node"
    if cluster is None:
        return needs
    if any(_has(node, wanted, free=True) for node in cluster.nodes):
        return f"{needs}, which is free{', so ' + set_up if set_up else ''}"
    if any(_has(node, wanted) for node in cluster.nodes):
        return f"{needs}, free are {_free(wanted, cluster)}"
    lacking = {name: amount for name, amount in wanted.items() if _largest(name, cluster) < amount}
    if lacking:
        found = ", ".join(f"at most {_amount(name, _largest(name, cluster))}" for name in lacking)
        never = f"{needs}, but no node has {_listed(lacking)} ({found})"
    else:
        never = f"{needs}, but no node has all of it"
    return never + _hope(wanted, cluster)


def _hope(wanted: Mapping[str, float], cluster: ClusterResources) -> str:
    """Say what an autoscaler does about resources that no node has."""
    if all(cluster.starting.get(name, 0.0) >= amount for name, amount in wanted.items()):
        return "; the autoscaler is starting a node"
    if cluster.autoscales:
        return "; the autoscaler starts no node for it: no node type has this, or the cluster is at its limit"
    return ", and there is no autoscaler" if cluster.autoscales is False else ""


def _usage(node: Node, name: str) -> tuple[float, float]:
    """Return how much of a resource of a node is used, and how much there is in all."""
    return node.get(name, (0.0, 0.0))


def _has(node: Node, wanted: Mapping[str, float], *, free: bool = False) -> bool:
    for name, amount in wanted.items():
        used, total = _usage(node, name)
        if (total - used if free else total) < amount:
            return False
    return True


def _largest(name: str, cluster: ClusterResources) -> float:
    return max((_usage(node, name)[1] for node in cluster.nodes), default=0.0)


def _free(wanted: Mapping[str, float], cluster: ClusterResources) -> str:
    parts = []
    for name in wanted:
        usage = [_usage(node, name) for node in cluster.nodes]
        total = sum(total for _, total in usage)
        free = total - sum(used for used, _ in usage)
        parts.append(f"{_amount(name, free)} of {_amount(name, total)}")
    return ", ".join(parts)


def _listed(amounts: Mapping[str, float]) -> str:
    return ", ".join(_amount(name, amount) for name, amount in amounts.items())


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.3g} GiB of memory" if name == "memory" else f"{amount:g} {name}"


def explain_pauses() -> Iterator[float]:
    """Yield the seconds until the reason is logged, then those between two lines."""
    return chain(EXPLAIN_AFTER, repeat(EXPLAIN_AFTER[-1]))


class ExplainTimes:
    """Tells when the reason of a wait is to be logged again, for a caller that checks now and then."""

    def __init__(self) -> None:
        self._pauses = explain_pauses()
        self._due = time.monotonic() + next(self._pauses)

    def is_due(self) -> bool:
        """Whether it is time; if so, the next time is later."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + next(self._pauses)
        return True
