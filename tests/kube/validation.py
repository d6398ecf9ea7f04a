"""KubeRay's own checks of a RayJob, which an API server does not make: their texts become ``status.message``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kube.api import Object

#: 52 characters for a RayCluster, less "-" and 5 random ones.
LONGEST_NAME = 47
_DNS_1035 = re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)


def problem_of(job: Object) -> tuple[str, str] | None:
    """Return the reason of the event and the message about the first problem of a RayJob; None if there is none."""
    if problem := _of_metadata(job["metadata"]["name"]):
        return "InvalidRayJobMetadata", f"The RayJob metadata is invalid: {problem}"
    if problem := _of_spec(job.get("spec", {})):
        return "InvalidRayJobSpec", problem
    return None


def _of_metadata(name: str) -> str:
    if len(name) > LONGEST_NAME:
        return f"RayJob name should be no more than {LONGEST_NAME} characters"
    if not _DNS_1035.fullmatch(name):
        return f"RayJob name should be a valid DNS1035 label: [{_DNS_1035_TEXT}]"
    return ""


def _of_spec(spec: Object) -> str:
    selects, backoff = bool(spec.get("clusterSelector")), spec.get("backoffLimit", 0)
    interactive = spec.get("submissionMode") == "InteractiveMode"
    cluster = spec.get("rayClusterSpec")
    checks = (
        (
            spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"),
            "a RayJob with shutdownAfterJobFinishes set to false is not allowed to be suspended",
        ),
        (spec.get("ttlSecondsAfterFinished", 0) < 0, "TTLSecondsAfterFinished must be a non-negative integer"),
        (
            spec.get("ttlSecondsAfterFinished", 0) > 0 and not spec.get("shutdownAfterJobFinishes"),
            "a RayJob with shutdownAfterJobFinishes set to false cannot have TTLSecondsAfterFinished",
        ),
        (selects and spec.get("suspend"), "the ClusterSelector mode doesn't support the suspend operation"),
        (cluster is None and not selects, "one of RayClusterSpec or ClusterSelector must be set"),
        (selects and backoff > 0, "BackoffLimit is incompatible with ClusterSelector mode"),
        (interactive and backoff > 0, "BackoffLimit is incompatible with InteractiveMode"),
        (
            cluster is not None and cluster.get("authOptions", {}).get("enableK8sTokenAuth"),
            "K8s token auth mode is currently not supported for RayJob",
        ),
        (
            cluster is not None and not cluster["headGroupSpec"]["template"].get("spec", {}).get("containers"),
            "headGroupSpec should have at least one container",
        ),
        (_not_positive(spec, "activeDeadlineSeconds"), "activeDeadlineSeconds must be a positive integer"),
        (_not_positive(spec, "preRunningDeadlineSeconds"), "preRunningDeadlineSeconds must be a positive integer"),
        (backoff < 0, "backoffLimit must be a positive integer"),
    )
    return next((f"The RayJob spec is invalid: {text}" for is_so, text in checks if is_so), "")


def _not_positive(spec: Object, name: str) -> bool:
    return name in spec and spec[name] <= 0
