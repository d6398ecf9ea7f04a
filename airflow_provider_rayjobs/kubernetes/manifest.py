"""
Builds the RayJob object that makes a cluster for a task, from what the DAG author gave.

The object has ``submissionMode: InteractiveMode``: KubeRay makes the RayCluster, and waits until ``spec.jobId`` names a
job (``controllers/ray/rayjob_controller.go`` of KubeRay 1.7). It is created without ``jobId``: until that is set,
``preRunningDeadlineSeconds`` ends a cluster whose submitter has died. From then on KubeRay follows the job, and deletes
the cluster when the job has ended.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_rayjobs.kubernetes.calls import GROUP, VERSION, items_of, text_at

API_VERSION = f"{GROUP}/{VERSION}"

#: The most characters that KubeRay accepts in a RayJob's name: it appends to it for the RayCluster and its services.
LONGEST_NAME = 47

#: KubeRay's deadline for a cluster without a job: the part of ``start_timeout``, and the least seconds, that are added
#: to ``start_timeout`` for the submission. A deferred task also waits for a free worker slot in this time.
SUBMISSION_SHARE, SUBMISSION_LEAST = 0.5, 600.0

#: Seconds that KubeRay's limit for the whole RayJob is longer than all limits of the task, which end it earlier.
ACTIVE_MARGIN = 600

#: Fields whose values must be integers, and that a template renders to strings.
_INTEGERS = frozenset({"replicas", "minReplicas", "maxReplicas", "numOfHosts", "idleTimeoutSeconds"})

#: Fields of a RayJob manifest that are kept, and those that are replaced by what this module needs.
_KEPT = ("suspend", "managedBy")
_USED = frozenset({"rayClusterSpec", *_KEPT})
_REPLACED = frozenset({"submissionMode", "shutdownAfterJobFinishes"})

#: Where a spec may have secrets beside environment variables: the parameters of ``ray start``, and the password in
#: ``gcsFaultToleranceOptions``.
PARAMETERS, REDIS = "rayStartParams", "redisPassword"

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_LABEL_NAME = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")

#: Prefix of this provider's own labels and annotations.
PREFIX = "airflow-provider-rayjobs/"


@dataclass(frozen=True)
class ClusterSpec:
    """
    What the DAG author gave, read and checked.

    :param spec: the ``spec`` of a RayCluster.
    :param namespace: the namespace in a manifest's ``metadata``, or an empty string.
    :param labels: labels in a manifest's ``metadata``.
    :param annotations: annotations in a manifest's ``metadata``.
    :param rayjob: those fields of a RayJob manifest that are kept, for Kueue.
    """

    spec: dict[str, Any]
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    rayjob: Mapping[str, Any] = field(default_factory=dict)


def read_spec(given: Any) -> ClusterSpec:
    """
    Read a cluster's spec.

    :param given: the ``spec`` of a RayCluster, or a whole RayCluster or RayJob manifest: a dict, or its YAML.
    :raises ValueError: if it is none of these; the message says why.
    """
    value = _parsed(given) if isinstance(given, str) else given
    if not isinstance(value, Mapping):
        raise ValueError(f"spec must be a dict or YAML of one, not {_kind(value)}")
    kind = value.get("kind")
    if kind is None and "apiVersion" not in value:
        return ClusterSpec(_checked(value, "spec"))
    if kind not in ("RayCluster", "RayJob"):
        raise ValueError(f"spec is a manifest of kind {kind!r}; it must be a RayCluster or a RayJob")
    if value.get("apiVersion") != API_VERSION:
        raise ValueError(f"spec is a manifest of apiVersion {value.get('apiVersion')!r}; it must be {API_VERSION!r}")
    inner = _mapping(value, "spec")
    metadata = _mapping(value, "metadata") if "metadata" in value else {}
    if kind == "RayJob":
        _refuse_rayjob_fields(inner)
    return ClusterSpec(
        spec=_checked(_mapping(inner, "rayClusterSpec"), "spec.rayClusterSpec")
        if kind == "RayJob"
        else _checked(inner, "spec"),
        namespace=str(metadata.get("namespace") or ""),
        labels=checked_pairs("metadata.labels", metadata.get("labels")),
        annotations=checked_pairs("metadata.annotations", metadata.get("annotations")),
        rayjob={name: inner[name] for name in _KEPT if name in inner} if kind == "RayJob" else {},
    )


def _parsed(text: str) -> Any:
    import yaml

    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as e:
        raise ValueError(f"spec is not valid YAML: {' '.join(str(e).split())}") from None
    if len(documents) != 1:
        raise ValueError(f"spec must be YAML of one object, but it has {len(documents)}")
    return documents[0]


def env_vars_in(given: Any) -> list[dict[str, str]]:
    """
    Return what a cluster's spec gives as plain text and may be secret: a dict for each list of environment variables,
    for the parameters of ``ray start`` (such as ``redis-password``), and for the password of its Redis.

    :param given: as for :func:`read_spec`; anything else has none.
    """
    try:
        value = _parsed(given) if isinstance(given, str) else given
    except ValueError:
        return []
    found: list[dict[str, str]] = []
    seen: set[int] = set()  # YAML's anchors may repeat a value, or put it into itself
    left = [value]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            pairs = {text_at(item, "name"): text_at(item, "value") for item in items_of(value, "env")}
            parameters = value.get(PARAMETERS)
            start = {name: text_at(parameters, name) for name in parameters} if isinstance(parameters, Mapping) else {}
            redis = {REDIS: text} if (text := text_at(value, REDIS, "value")) else {}
            found += [one for one in (pairs, start, redis) if one]
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
    return found


def shown_spec(given: Any, secret: Collection[str]) -> Any:
    """
    Return a spec without its secrets, to show it.

    :param given: as for :func:`read_spec`.
    :param secret: which names in :func:`env_vars_in` have secret values.
    :return: a part of JSON. Text that is not valid YAML yet, because of its templates, is not shown.
    """
    try:
        return _without(secret, _parsed(given) if isinstance(given, str) else given)
    except (ValueError, RecursionError):
        digest = hashlib.blake2b(str(given).encode(), digest_size=8).hexdigest()
        return f"*** (not valid YAML before its templates are rendered; digest {digest})"


def _without(secret: Collection[str], value: Any, within: str = "") -> Any:
    if isinstance(value, list | tuple):
        return [_without(secret, item, within) for item in value]
    if not isinstance(value, Mapping):
        return value
    names = {"env": {"value"} if text_at(value, "name") in secret else set(), PARAMETERS: set(secret)}
    names[REDIS] = {"value"} if REDIS in secret else set()
    hidden = names.get(within, set())
    return {key: "***" if key in hidden else _without(secret, item, str(key)) for key, item in value.items()}


def _refuse_rayjob_fields(spec: Mapping[str, Any]) -> None:
    """Refuse those fields of a RayJob that the task's own arguments replace."""
    arguments = {
        "entrypoint": "the task's entrypoint",
        "runtimeEnvYAML": "the task's runtime_env",
        "jobId": "the task's submission_id",
        "metadata": "the task's metadata",
        "entrypointNumCpus": "the task's entrypoint_num_cpus",
        "entrypointNumGpus": "the task's entrypoint_num_gpus",
        "entrypointResources": "the task's entrypoint_resources",
        "ttlSecondsAfterFinished": "keep_seconds",
        "preRunningDeadlineSeconds": "start_timeout",
        "activeDeadlineSeconds": "lifetime, or the task's job_timeout",
        "backoffLimit": "the task's retries",
        "clusterSelector": "a connection to that cluster (ray_conn_id)",
    }
    for name, value in spec.items():
        if name in arguments and value not in (None, "", 0, {}):
            raise ValueError(f"spec.{name} of the RayJob manifest is not used; remove it, and set {arguments[name]}")
        if name not in arguments and name not in _USED and name not in _REPLACED:
            raise ValueError(f"spec.{name} of the RayJob manifest is not used; remove it")


def _checked(spec: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check what KubeRay refuses later, and return a copy with integers where templates gave strings."""
    if not isinstance(spec.get("headGroupSpec"), Mapping):
        raise ValueError(f"{where} has no headGroupSpec; give the spec of a RayCluster, or a whole manifest")
    options = spec.get("authOptions")
    if isinstance(options, Mapping) and options.get("enableK8sTokenAuth"):
        raise ValueError(f"{where}.authOptions.enableK8sTokenAuth: KubeRay does not allow it in a RayJob; remove it")
    return {key: _with_integers(key, value) for key, value in spec.items()}


def _with_integers(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_integers(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_integers(key, item) for item in value]
    if key in _INTEGERS and isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value


def _mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    if not isinstance(found, Mapping):
        raise ValueError(f"spec: {key} of the manifest must be a dict, not {_kind(found)}")
    return found


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def checked_pairs(where: str, pairs: Any) -> dict[str, str]:
    """
    Return labels or annotations, checked.

    :param where: the field, for messages; that of labels ends with ``labels``.
    :raises ValueError: if a name or a value is not valid in Kubernetes.
    """
    if pairs is None:
        return {}
    if not isinstance(pairs, Mapping):
        raise ValueError(f"{where} must be a dict, not {_kind(pairs)}")
    for name, value in pairs.items():
        if not isinstance(name, str) or not _LABEL_NAME.fullmatch(name):
            raise ValueError(f"{where}: {name!r} is not a valid name of a label or annotation")
        if name.startswith(PREFIX):
            raise ValueError(f"{where}: {name!r}: names that begin with {PREFIX!r} are reserved for the provider")
        if not isinstance(value, str):
            raise ValueError(f"{where}[{name!r}] must be a string, not {_kind(value)}")
        if where.endswith("labels") and not _LABEL_VALUE.fullmatch(value):
            raise ValueError(
                f"{where}[{name!r}] must have at most 63 letters, digits, '-', '_' and '.', and begin and end with a "
                f"letter or digit; it is {value!r}"
            )
    return dict(pairs)


def object_name(dag_id: str, task_id: str, digest: str) -> str:
    """
    Return the name of a RayJob: a DNS-1035 label of at most :data:`LONGEST_NAME` characters.

    :param digest: at most 20 hex digits that make the name unique.
    """
    dag, task = (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:12].strip("-") for name in (dag_id, task_id))
    words = "-".join(word for word in (dag, task) if word)
    if not words[:1].isalpha():
        words = f"t-{words}"[:25].strip("-")
    return f"{words}-{digest}"[:LONGEST_NAME]


def pre_running_deadline(start_timeout: float) -> int:
    """
    Return the seconds after which KubeRay ends a cluster that has no job.

    :param start_timeout: seconds within which the cluster must be ready.
    """
    return math.ceil(start_timeout + max(SUBMISSION_LEAST, SUBMISSION_SHARE * start_timeout))


def rayjob(
    cluster: ClusterSpec,
    *,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    deadline: int,
    lifetime: float,
    job_timeout: float | None = None,
) -> dict[str, Any]:
    """
    Return the RayJob object that makes a cluster.

    :param cluster: the cluster's spec.
    :param labels: labels beside those of the manifest, over which they prevail.
    :param annotations: annotations, likewise.
    :param deadline: seconds after which KubeRay ends the cluster if it has no job.
    :param lifetime: seconds after which KubeRay ends the cluster in any case.
    :param job_timeout: seconds after which the task stops the job, if it has such a limit: then ``lifetime`` follows
        from it.
    """
    longest = lifetime if job_timeout is None else deadline + job_timeout + ACTIVE_MARGIN
    return {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**cluster.labels, **labels},
            "annotations": {**cluster.annotations, **annotations},
        },
        "spec": {
            "submissionMode": "InteractiveMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 0,  # for a cluster that never gets a job
            "preRunningDeadlineSeconds": deadline,
            "activeDeadlineSeconds": math.ceil(longest),
            **cluster.rayjob,
            "rayClusterSpec": cluster.spec,
        },
    }
