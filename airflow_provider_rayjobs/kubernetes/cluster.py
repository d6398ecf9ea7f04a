"""The cluster that a task asks for, as plain data. DAG files import this, so it loads nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.cluster.urls import (
    JOB_PLACEHOLDERS,
    KUBERAY_PLACEHOLDERS,
    history_problem,
    is_web_address,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Default of ``kubernetes_conn_id``: that of Airflow's Kubernetes provider.
DEFAULT_KUBERNETES_CONN_ID = "kubernetes_default"

#: Default of ``start_timeout``, in seconds.
START_TIMEOUT = 1200.0

#: Default of ``lifetime``: a day, in seconds.
LIFETIME = 86_400.0

#: The ways in which a head is reached; all others are templates of a URL.
SERVICE, PROXY = "service", "proxy"

#: What may stand in braces in ``history_url``.
HISTORY_PLACEHOLDERS = (*JOB_PLACEHOLDERS, *KUBERAY_PLACEHOLDERS)


class KubeRayCluster:
    """
    A Ray cluster that KubeRay makes for one task, or for several tasks of a DAG run.

    The cluster lives as long as the job. A retry after a lost worker takes over cluster and job; a user's clear gets a
    new cluster, and ends the old one. KubeRay deletes the cluster ``keep_seconds`` after the job's end, and one that
    never got a job at a deadline: half of ``start_timeout`` after it, and at least 10 minutes.

    Example::

        RaySubmitJobOperator(
            task_id="train",
            entrypoint="python train.py",
            cluster=KubeRayCluster(
                "/opt/airflow/clusters/gpu.yaml",
                namespace="ray",
                labels={"kueue.x-k8s.io/queue-name": "training"},
            ),
        )

    All parameters are templated.

    :param spec: the ``spec`` of a RayCluster, or a whole RayCluster or RayJob manifest: a dict, YAML, or the path of a
        YAML file (``.yaml``, ``.yml``), which is a template. A relative path is searched like those of Airflow's other
        templates.
    :param namespace: Kubernetes namespace; by default that of the manifest, then that of the connection, then
        ``default``.
    :param kubernetes_conn_id: Airflow connection of type ``kubernetes``.
    :param labels: labels of the RayJob, for instance for Kueue or a cost tool.
    :param annotations: annotations of the RayJob.
    :param start_timeout: seconds within which the cluster must be ready.
    :param keep_seconds: seconds for which the cluster stays after the job's end. If the task does not see the end, two
        minutes are added; 30 minutes if it reads a function's value.
    :param lifetime: seconds after its creation when KubeRay ends the cluster in any case, also under a running job; so
        nothing stays for ever when all of Airflow is lost. A job with a ``job_timeout`` has this limit instead.
    :param access: how the head is reached: ``service`` (its Kubernetes service, from within Kubernetes), ``proxy`` (the
        Kubernetes API server's proxy to this service), or a URL with ``{namespace}``, ``{cluster}`` (the RayCluster's
        name) and ``{service}``.
    :param history_url: URL of the job's page in a history server, to which the task's link leads after the task's end.
        It may contain ``{submission_id}``, ``{session}`` (of Ray), ``{namespace}`` and ``{cluster}``.
    :raises ValueError: if an argument is wrong, and this is known when the DAG is parsed.
    """

    template_fields: Sequence[str] = (
        "spec",
        "namespace",
        "kubernetes_conn_id",
        "labels",
        "annotations",
        "start_timeout",
        "keep_seconds",
        "lifetime",
        "access",
        "history_url",
    )

    def __init__(
        self,
        spec: Mapping[str, Any] | str | Path,
        *,
        namespace: str | None = None,
        kubernetes_conn_id: str = DEFAULT_KUBERNETES_CONN_ID,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        start_timeout: float | str = START_TIMEOUT,
        keep_seconds: int | str = 0,
        lifetime: float | str = LIFETIME,
        access: str = SERVICE,
        history_url: str = "",
    ) -> None:
        given: Any = spec
        if not isinstance(given, Mapping | str | Path):
            raise ValueError(f"spec must be a dict, YAML, or the path of a YAML file, not {type(given).__name__}")
        if not given:
            raise ValueError("spec is empty: give the spec of a RayCluster, its YAML, or the path of a YAML file")
        self.spec: Any = str(given) if isinstance(given, Path) else given
        self.namespace = namespace
        self.kubernetes_conn_id = kubernetes_conn_id
        self.labels: Any = labels
        self.annotations: Any = annotations
        self.start_timeout = start_timeout
        self.keep_seconds = keep_seconds
        self.lifetime = lifetime
        self.access = access
        self.history_url = history_url
        check_access(access)
        check_history_url(history_url)

    def __repr__(self) -> str:
        """
        Return the same text for the same cluster: Airflow stores it with the DAG, and shows it.

        ``airflow tasks render`` prints it without masking, so secrets are hidden here.
        """
        from airflow_provider_rayjobs.compat.masking import sensitive_names
        from airflow_provider_rayjobs.kubernetes.manifest import env_vars_in, shown_spec

        shown = {name: getattr(self, name) for name in self.template_fields}
        if not self.file:
            secret = sensitive_names({name for pairs in env_vars_in(self.spec) for name in pairs})
            shown["spec"] = shown_spec(self.spec, secret)
        return f"KubeRayCluster({json.dumps(shown, default=str, sort_keys=True)})"

    @property
    def file(self) -> str:
        """The path of the YAML file that has the spec; empty if the spec is given directly."""
        text = self.spec.strip() if isinstance(self.spec, str) else ""
        return text if text.endswith((".yaml", ".yml")) and "\n" not in text else ""


def check_access(access: Any, *, rendered: bool = False) -> None:
    """
    Check how the head is reached, as far as this is known: templates are skipped.

    :param rendered: whether it can't be a template any more.
    :raises ValueError: if it is neither ``service``, ``proxy`` nor a URL, or if it may have a secret: triggers and
        XComs hold it.
    """
    if not isinstance(access, str):
        raise ValueError(f"access must be a string, not {type(access).__name__}")
    if access in (SERVICE, PROXY) or (not rendered and _is_template(access)):
        return
    if not access.startswith(("http://", "https://")):
        raise ValueError(f"access must be {SERVICE!r}, {PROXY!r}, or a URL that begins with http:// or https://")
    url = head_url(access, namespace="n", cluster="c", service="s")
    if not is_web_address(url) or set("?#") & set(url):
        raise ValueError(
            "access must be a URL without a login, and without '?' or '#': Airflow shows it. Ray's token comes from "
            "KubeRay's Secret (authOptions)"
        )


def _is_template(text: str) -> bool:
    return "{{" in text or "{%" in text


def check_history_url(url: Any) -> None:
    """
    Check the URL of a history server, as far as it is known: templates are skipped.

    :raises ValueError: if it is not a URL, or has other placeholders than it may.
    """
    if not isinstance(url, str):
        raise ValueError(f"history_url must be a string, not {type(url).__name__}")
    if url and not _is_template(url) and (problem := history_problem(url, HISTORY_PLACEHOLDERS)):
        raise ValueError(f"history_url {problem}")


def head_url(template: str, *, namespace: str, cluster: str, service: str) -> str:
    """
    Return the URL of a head.

    :param template: a URL with ``{namespace}``, ``{cluster}`` and ``{service}``.
    :raises ValueError: if the template has other fields.
    """
    try:
        return template.format(namespace=namespace, cluster=cluster, service=service).rstrip("/")
    except (AttributeError, IndexError, KeyError, ValueError) as e:
        raise ValueError("access may have the fields {namespace}, {cluster}, {service} only") from e


@dataclass(frozen=True)
class ClusterRef:
    """
    Names a cluster that KubeRay makes. It has no secret: triggers and XComs hold it.

    :param kubernetes_conn_id: Airflow connection of type ``kubernetes``.
    :param namespace: Kubernetes namespace.
    :param name: name of the RayJob.
    :param uid: uid of the RayJob: another one of the same name is another cluster.
    :param access: how the head is reached.
    :param history_url: URL of a job's page in a history server, with placeholders; may be empty.
    :param owned: whether the cluster belongs to the task that holds this, and ends with its job.
    """

    kubernetes_conn_id: str
    namespace: str
    name: str
    uid: str
    access: str = SERVICE
    history_url: str = ""
    owned: bool = False

    def __str__(self) -> str:
        """Return its name, for messages."""
        return f"RayJob {self.namespace}/{self.name}"

    def to_json(self) -> dict[str, Any]:
        """Return the arguments as JSON; ``history_url``, which older versions do not know, only if there is one."""
        arguments = asdict(self)
        if not self.history_url:
            del arguments["history_url"]
        return arguments

    @classmethod
    def from_json(cls, value: Any) -> ClusterRef:
        """
        Read what :meth:`to_json` returned. The cluster's uid is needed: else any object of its name would count.

        :raises ValueError: if it is something else, or its ``access`` is wrong: an XCom may come from anywhere.
        """
        texts = ("kubernetes_conn_id", "namespace", "name", "uid", "access", "history_url")
        known = {**dict.fromkeys(texts, str), "owned": bool}
        if isinstance(value, Mapping):
            given = {"history_url": "", **value}
            has_kinds = all(isinstance(given.get(key), kind) for key, kind in known.items())
            if has_kinds and all(given[key] for key in ("namespace", "name", "uid")):
                check_access(given["access"], rendered=True)
                return cls(**{key: given[key] for key in known})
        raise ValueError(
            "cluster must be a KubeRayCluster, or the cluster of `with ray_cluster(…) as cluster`, not "
            f"{type(value).__name__}"
        )
