"""What each template field may contain. :mod:`~airflow_provider_rayjobs.tasks.rendering` renders accordingly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Schema:
    """
    What a template field, or a part of one, may contain.

    :param kind: what a template renders to: ``string``; ``any``: a string, or the list or dict that the template
        names; ``native``: the value that Airflow would return.
    :param parts: the schema of each key. ``*`` is for all other keys and for the items of a list. By default each part
        has the schema of the whole.
    """

    kind: str
    parts: Mapping[str, Schema] = field(default_factory=dict)

    def part(self, key: Any) -> Schema:
        """Return the schema of a key or an index."""
        return self.parts.get(key) or self.parts.get("*") or self

    def with_strings(self, value: Any) -> Any:
        """Return a rendered value, with each number converted to a string where the schema expects one."""
        if isinstance(value, Mapping):
            return {key: self.part(key).with_strings(item) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [self.part(i).with_strings(item) for i, item in enumerate(value)]
        return str(value) if self.kind != "native" and isinstance(value, int | float) else value


STRING = Schema("string")
NATIVE = Schema("native")
#: A string, or a list of strings.
STRING_OR_LIST = Schema("any", {"*": STRING})
#: A dict with strings as values.
STRING_DICT = Schema("native", {"*": STRING})
#: A string, or nested lists and dicts of strings. Only the two options of the installers are booleans.
NESTED = Schema("any", {"pip_check": NATIVE, "uv_check": NATIVE})

_RUNTIME_ENV = Schema(
    "native",
    {
        "env_vars": STRING_DICT,
        "working_dir": NESTED,
        "py_modules": NESTED,
        "py_executable": NESTED,
        "java_jars": NESTED,
        "pip": NESTED,
        "uv": NESTED,
        "conda": NESTED,
        "container": NESTED,
        "image_uri": NESTED,
        "excludes": NESTED,
        "worker_process_setup_hook": NESTED,
        "*": NATIVE,
    },
)

_DEPLOYMENT = Schema(
    "native",
    {"name": STRING, "ray_actor_options": Schema("native", {"runtime_env": _RUNTIME_ENV, "*": NATIVE}), "*": NATIVE},
)

_APPLICATION = Schema(
    "native",
    {
        **dict.fromkeys(("name", "import_path", "route_prefix"), STRING),
        "runtime_env": _RUNTIME_ENV,
        "deployments": Schema("native", {"*": _DEPLOYMENT}),
        "*": NATIVE,
    },
)

#: Applications of Ray Serve.
_APPLICATIONS = Schema("native", {"*": _APPLICATION})

#: The schemas of the template fields. Airflow itself renders all others, such as a function's arguments.
SCHEMAS = {
    "entrypoint": STRING_OR_LIST,
    "secret_env_vars": STRING_DICT,
    "submission_id": STRING,
    "metadata": STRING_DICT,
    "entrypoint_num_cpus": STRING,  # a number as a string, like the following ones
    "entrypoint_num_gpus": STRING,
    "entrypoint_memory": STRING,
    "entrypoint_resources": STRING_DICT,
    "entrypoint_label_selector": STRING_DICT,
    "ray_conn_id": STRING,
    "job_timeout": STRING,
    "pending_timeout": STRING,
    "result_path": STRING,
    "target_statuses": STRING_OR_LIST,
    "runtime_env": _RUNTIME_ENV,
    "applications": _APPLICATIONS,
    # Also YAML as a string.
    "config": Schema("any", {"applications": _APPLICATIONS, "*": NATIVE}),
    "deploy_timeout": STRING,
    "application": STRING,
}

#: The schemas of the fields of a KubeRayCluster.
CLUSTER_SCHEMAS = {
    "spec": Schema("any"),
    "labels": STRING_DICT,
    "annotations": STRING_DICT,
    **dict.fromkeys(("namespace", "kubernetes_conn_id", "start_timeout", "keep_seconds", "lifetime", "access"), STRING),
}
