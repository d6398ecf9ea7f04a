"""The tests' own definitions of RayJob and RayCluster: the fields that the tests use, with KubeRay's names and checks.

KubeRay's own definitions are 20,000 lines long, most of them those of a pod. These check what KubeRay's check of the
fields around it, and drop fields that they don't know, as an API server does with KubeRay's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.kube.api import CRDS, RAY, ApiError, Object

if TYPE_CHECKING:
    from tests.kube.api import Api

_ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_COUNT = {"type": "integer", "format": "int32"}
_NUMBER = {"type": "number"}
_TIME = {"type": "string", "format": "date-time"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}


def _object(properties: Object, required: tuple[str, ...] = ()) -> Object:
    return {"type": "object", "properties": properties} | ({"required": [*required]} if required else {})


_POD_TEMPLATE = _object(
    {
        "metadata": _ANY,
        "spec": _ANY
        | _object(
            {"containers": {"type": "array", "items": _ANY | _object({"name": _TEXT}, ("name",))}}, ("containers",)
        ),
    }
)

_CLUSTER_SPEC = _object(
    {
        "rayVersion": _TEXT,
        "suspend": _FLAG,
        "enableInTreeAutoscaling": _FLAG,
        "autoscalerOptions": _ANY,
        "gcsFaultToleranceOptions": _ANY,
        "authOptions": _object(
            {
                "mode": {"type": "string", "enum": ["disabled", "token"]},
                "secretName": _TEXT,
                "enableK8sTokenAuth": _FLAG,
            }
        ),
        "headServiceAnnotations": _TEXTS,
        "headGroupSpec": _object(
            {
                "template": _POD_TEMPLATE,
                "rayStartParams": _TEXTS,
                "serviceType": _TEXT,
                "enableIngress": _FLAG,
                "headService": _ANY,
                "resources": _ANY,
                "labels": _TEXTS,
            },
            ("template",),
        ),
        "workerGroupSpecs": {
            "type": "array",
            "items": _object(
                {
                    "groupName": _TEXT,
                    "replicas": {**_COUNT, "default": 0},
                    "minReplicas": {**_COUNT, "default": 0},
                    "maxReplicas": {**_COUNT, "default": 2147483647},
                    "numOfHosts": {**_COUNT, "default": 1},
                    "idleTimeoutSeconds": _COUNT,
                    "suspend": _FLAG,
                    "rayStartParams": _TEXTS,
                    "template": _POD_TEMPLATE,
                    "scaleStrategy": _ANY,
                    "resources": _ANY,
                    "labels": _TEXTS,
                },
                ("groupName", "template"),
            ),
        },
    },
    ("headGroupSpec",),
)

_JOB_SPEC = _object(
    {
        "activeDeadlineSeconds": _COUNT,
        "backoffLimit": {**_COUNT, "default": 0},
        "clusterSelector": _TEXTS,
        "deletionStrategy": _ANY,
        "entrypoint": _TEXT,
        "entrypointNumCpus": _NUMBER,
        "entrypointNumGpus": _NUMBER,
        "entrypointResources": _TEXT,
        "jobId": _TEXT,
        "managedBy": {"type": "string", "enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]},
        "metadata": _TEXTS,
        "preRunningDeadlineSeconds": {**_COUNT, "minimum": 1},
        "rayClusterSpec": _CLUSTER_SPEC,
        "runtimeEnvYAML": _TEXT,
        "shutdownAfterJobFinishes": _FLAG,
        # The real field has no enum, so an API server takes any text.
        "submissionMode": {**_TEXT, "default": "K8sJobMode"},
        "submitterConfig": _ANY,
        "submitterPodTemplate": _ANY,
        "suspend": _FLAG,
        "ttlSecondsAfterFinished": {**_COUNT, "default": 0},
    }
)

_JOB_STATUS = _object(
    {
        "dashboardURL": _TEXT,
        "endTime": _TIME,
        "failed": {**_COUNT, "default": 0},
        "jobDeploymentStatus": _TEXT,
        "jobId": _TEXT,
        "jobStatus": _TEXT,
        "jobStatusCheckFailureStartTime": _TIME,
        "message": _TEXT,
        "observedGeneration": {"type": "integer", "format": "int64"},
        "rayClusterName": _TEXT,
        "rayClusterStatus": _ANY,
        "rayJobInfo": _object({"startTime": _TIME, "endTime": _TIME}),
        "reason": _TEXT,
        "startTime": _TIME,
        "succeeded": {**_COUNT, "default": 0},
    }
)

_KINDS = {
    "rayjobs": ("RayJob", _JOB_SPEC, _JOB_STATUS),
    "rayclusters": ("RayCluster", _CLUSTER_SPEC, _ANY),
}

#: Fields of ``RayJob.spec`` that KubeRay before 1.6 does not know.
NEWER_FIELDS = ("preRunningDeadlineSeconds",)


def definition(plural: str, older: bool = False, lenient: bool = False) -> Object:
    """
    Return a CustomResourceDefinition.

    :param plural: ``rayjobs`` or ``rayclusters``.
    :param older: without the fields that KubeRay before 1.6 does not know.
    :param lenient: take null for each text.
    """
    kind, spec, status = _KINDS[plural]
    if older:
        known = {name: value for name, value in spec["properties"].items() if name not in NEWER_FIELDS}
        spec = spec | {"properties": known}
    schema = _object({"spec": spec, "status": status})
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": _with_null_texts(schema) if lenient else schema},
    }
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower(), "categories": ["all"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.ray.io"},
        "spec": {"group": "ray.io", "names": names, "scope": "Namespaced", "versions": [version]},
    }


def _with_null_texts(schema: Object) -> Object:
    changed = {name: _with_null_texts(one) if isinstance(one, dict) else one for name, one in schema.items()}
    return changed | ({"nullable": True} if schema == _TEXT else {})


def serve(api: Api, older: bool = False, timeout: float = 60.0) -> None:
    """
    Define RayJob and RayCluster, or define them anew; wait until the API server serves them so.

    :param api: a client of an administrator.
    :param older: as KubeRay before 1.6 defines them.
    :param timeout: seconds.
    :raises TimeoutError: if it does not in time.
    """
    _define(api, older, lenient=False)
    deadline = time.monotonic() + timeout
    while (problem := _problem(api, older)) is not None:
        if '"null"' in problem:
            # An API server of Kubernetes 1.20 that was built with Go 1.19 takes an empty text for null.
            _define(api, older, lenient=True)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the API server does not serve RayJobs as defined after {timeout:.0f} s: {problem}")
        time.sleep(0.1)


def _define(api: Api, older: bool, lenient: bool) -> None:
    for plural in _KINDS:
        wanted = definition(plural, older, lenient)
        try:
            api.request("POST", CRDS, wanted)
        except ApiError as e:
            if e.status != 409:
                raise
            path = f"{CRDS}/{plural}.ray.io"
            wanted["metadata"]["resourceVersion"] = api.request("GET", path)["metadata"]["resourceVersion"]
            api.request("PUT", path, wanted)


def _problem(api: Api, older: bool) -> str | None:
    """Try an object that is not kept; return what is not yet as defined."""
    probe = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "probe"}}
    probe["spec"] = dict.fromkeys(NEWER_FIELDS, 1) | {"entrypoint": ""}
    try:
        made = api.request("POST", f"{RAY}/namespaces/default/rayjobs", probe, query={"dryRun": "All"})
        api.request("GET", f"{RAY}/rayclusters")
    except ApiError as e:
        return e.message
    fits = all((name in made["spec"]) != older for name in NEWER_FIELDS)
    return None if fits else f"spec is {made['spec']}"
