"""What became of a submission, without what must differ between two submissions: ids, times, the names of packages."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.parity.probe import MARK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.witness import Witness

#: Metadata that the provider adds begins so.
OWN = "airflow_"

_PACKAGE = re.compile(r"_ray_pkg_[0-9a-f]+")
#: A wheel is told from others of its version by a build tag; Ray's client does not.
_BUILD_TAG = re.compile(r"-\d+_[0-9a-f]{16}(?=-py3)")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T_]\d\d[:-]\d\d[:-]\d\d[.,_]?\d*")
_RANDOM_ID = re.compile(r"raysubmit_[A-Za-z0-9]{16}")
_NODE = "ray.io/node-id"


def plain(value: Any, submission_id: str) -> Any:
    """Return a value with placeholders for ids, times and the names of packages."""
    text = json.dumps(value, sort_keys=True).replace(submission_id, "ID")
    return json.loads(_RANDOM_ID.sub("ID", _TIME.sub("TIME", _PACKAGE.sub("PACKAGE", _BUILD_TAG.sub("", text)))))


def without_own(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return metadata without the provider's own keys."""
    return {key: text for key, text in (metadata or {}).items() if not key.startswith(OWN)}


def of_job(details: dict[str, Any], actor: dict[str, Any] | None, log: str) -> dict[str, Any]:
    """
    Return what a job is, was told and saw.

    :param details: of ``GET /api/jobs/{id}``.
    :param actor: the job's supervisor, of ``GET /api/v0/actors``, which was asked for the resources.
    :param log: the job's.
    """
    parts = {name: details[name] for name in ("type", "status", "error_type", "entrypoint", "driver_exit_code")}
    parts["message"] = details["message"] if details["status"] == "SUCCEEDED" else None
    parts["metadata"] = without_own(details["metadata"])
    parts["runtime_env"] = _told(details["runtime_env"])
    if actor is not None:
        parts["resources"] = actor["required_resources"]
        # The job's own environment as Ray understands it.
        parts["understood"] = json.loads(actor["serialized_runtime_env"] or "{}")
        labels = actor["label_selector"] or {}
        parts["labels"] = {key: "NODE" if key == _NODE else text for key, text in labels.items()}
    parts |= _seen(log)
    return dict(plain(parts, details["submission_id"]))


def _told(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    # The commit of the client's own Ray; where there is none, the cluster adds its own.
    return {key: value for key, value in (runtime_env or {}).items() if key != "_ray_commit"}


def _seen(log: str) -> dict[str, Any]:
    lines = log.splitlines()
    report: dict[str, Any] = {}
    for line in lines:
        if line.startswith(MARK):
            report = json.loads(line.removeprefix(MARK))
            config = report["job_config"]
            config["metadata"] = without_own(config.get("metadata"))
            config["runtime_env"] = _told(config.get("runtime_env"))
    # Ray and the job write to the same file, in no fixed order.
    return {**report, "log": sorted(line for line in lines if not line.startswith(MARK))}


def supervisors(witness: Witness) -> dict[str, dict[str, Any]]:
    """Return the supervisor actors of all jobs, by submission id."""
    _, text = witness.request("GET", "/api/v0/actors?detail=1&limit=10000")
    actors = json.loads(text)["data"]["result"]["result"]
    prefix = "_ray_internal_job_actor_"
    return {str(a["name"]).removeprefix(prefix): a for a in actors if str(a["name"]).startswith(prefix)}
