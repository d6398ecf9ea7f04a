"""The result of a submission, without the parts that always differ: ids, times, names of packages."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.parity.probe import MARK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.witness import Witness

#: Prefix of the metadata that the provider adds.
OWN = "airflow_"

_PACKAGE = re.compile(r"_ray_pkg_[0-9a-f]+")
#: The provider distinguishes wheels of the same version by a build tag; Ray's client does not.
_BUILD_TAG = re.compile(r"-\d+_[0-9a-f]{16}(?=-py3)")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T_]\d\d[:-]\d\d[:-]\d\d[.,_]?\d*")
_RANDOM_ID = re.compile(r"raysubmit_[A-Za-z0-9]{16}")
_NODE = "ray.io/node-id"


def plain(value: Any, submission_id: str) -> Any:
    """Return a value with placeholders for ids, times and the names of packages."""
    text = json.dumps(value, sort_keys=True).replace(submission_id, "ID")
    return json.loads(_RANDOM_ID.sub("ID", _TIME.sub("TIME", _PACKAGE.sub("PACKAGE", _BUILD_TAG.sub("", text)))))


def without_own(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return metadata without the provider's keys."""
    return {key: text for key, text in (metadata or {}).items() if not key.startswith(OWN)}


def of_job(details: dict[str, Any], actor: dict[str, Any] | None, log: str) -> dict[str, Any]:
    """
    Return a job's details, what it was given, and what it saw.

    :param details: from ``GET /api/jobs/{id}``.
    :param actor: the job's supervisor, which requests its resources, from ``GET /api/v0/actors``.
    :param log: the job's log.
    """
    parts = {name: details[name] for name in ("type", "status", "error_type", "entrypoint", "driver_exit_code")}
    parts["message"] = details["message"] if details["status"] == "SUCCEEDED" else None
    parts["metadata"] = without_own(details["metadata"])
    parts["runtime_env"] = _without_commit(details["runtime_env"])
    if actor is not None:
        parts["resources"] = actor["required_resources"]
        # The job's runtime_env as Ray parsed it.
        parts["understood"] = json.loads(actor["serialized_runtime_env"] or "{}")
        labels = actor["label_selector"] or {}
        parts["labels"] = {key: "NODE" if key == _NODE else text for key, text in labels.items()}
    parts |= _seen(log)
    return dict(plain(parts, details["submission_id"]))


def _without_commit(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    # The commit of the client's Ray; without one, the cluster adds its own.
    return {key: value for key, value in (runtime_env or {}).items() if key != "_ray_commit"}


def _seen(log: str) -> dict[str, Any]:
    lines = log.splitlines()
    report: dict[str, Any] = {}
    for line in lines:
        if line.startswith(MARK):
            report = json.loads(line.removeprefix(MARK))
            config = report["job_config"]
            config["metadata"] = without_own(config.get("metadata"))
            config["runtime_env"] = _without_commit(config.get("runtime_env"))
    # Ray and the job write to the same file in any order.
    return {**report, "log": sorted(line for line in lines if not line.startswith(MARK))}


def supervisors(witness: Witness) -> dict[str, dict[str, Any]]:
    """Return the supervisor actors of all jobs, by submission id."""
    _, text = witness.request("GET", "/api/v0/actors?detail=1&limit=10000")
    actors = json.loads(text)["data"]["result"]["result"]
    prefix = "_ray_internal_job_actor_"
    return {str(a["name"]).removeprefix(prefix): a for a in actors if str(a["name"]).startswith(prefix)}
