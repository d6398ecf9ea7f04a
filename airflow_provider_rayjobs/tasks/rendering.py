"""
Rendering of template fields that keeps strings as strings.

With ``render_template_as_native_obj`` Airflow evaluates each string of a template field as a Python literal, even if it
has no template (``jinja2.nativetypes.native_concat``): the environment variable ``"8080"`` becomes a number, and
``"3.10"`` becomes 3.1. This module leaves strings without a template unchanged. A template renders to the same string
as without that option, unless its field also accepts a list or dict.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, redact

from airflow_provider_rayjobs.kubernetes.cluster import KubeRayCluster
from airflow_provider_rayjobs.text.safe_text import is_safe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.providers.common.compat.sdk import BaseOperator, Context

    Renders = BaseOperator
else:
    Renders = object


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
    "runtime_env": Schema(
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
    ),
}


#: The schemas of the fields of a KubeRayCluster.
CLUSTER_SCHEMAS = {
    "spec": Schema("any"),
    "labels": STRING_DICT,
    "annotations": STRING_DICT,
    **dict.fromkeys(("namespace", "kubernetes_conn_id", "start_timeout", "keep_seconds", "lifetime", "access"), STRING),
}


def _schema(task: Any, parent: Any, name: str) -> Schema | None:
    if parent is task:
        return SCHEMAS.get(name)
    return CLUSTER_SCHEMAS.get(name) if isinstance(parent, KubeRayCluster) else None


class RendersTexts(Renders):
    """Mixin of the operators and sensors: a template gives the same job, however Airflow renders it."""

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        """
        Render the fields. This private method is the only one that Airflow also calls for a mapped task.

        :raises AirflowFailException: if a field has characters that Airflow's database can't store.
        """
        for name in template_fields:
            schema = _schema(self, parent, name)
            value = getattr(parent, name, None)
            if schema is None or not isinstance(value, str | dict | list | tuple):
                super()._do_render_template_fields(parent, [name], context, jinja_env, seen_oids)
                continue
            try:
                rendered = self._render_as(schema, value, context, jinja_env, seen_oids)
            except Exception:
                shown = redact(value, name)
                self.log.exception("Template field %r of task %r can't be rendered: %r", name, self.task_id, shown)
                raise
            setattr(parent, name, rendered)
        for name in template_fields if parent is self else ():
            if not is_safe(getattr(self, name, None)):
                raise AirflowFailException(
                    f"Template field {name!r} of task {self.task_id!r} must not contain NUL or lone surrogates: "
                    "processes and Airflow's database can't take them"
                )

    def _render_as(self, schema: Schema, value: Any, context: Context, jinja_env: Any, seen_oids: set[int]) -> Any:
        if id(value) in seen_oids:  # the value of a mapped task is already rendered
            return value
        if isinstance(value, dict):
            return {k: self._render_as(schema.part(k), v, context, jinja_env, seen_oids) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._render_as(schema.part(i), v, context, jinja_env, seen_oids) for i, v in enumerate(value)]
        if isinstance(value, str) and not self._is_template(value, jinja_env):
            return value
        if not isinstance(value, str) or not _is_native(jinja_env) or value.endswith(tuple(self.template_ext)):
            return self.render_template(value, context, jinja_env, seen_oids)
        if schema.kind == "native":
            return schema.with_strings(self.render_template(value, context, jinja_env, seen_oids))
        pieces = rendered_pieces(jinja_env.from_string(value), context)
        if schema.kind == "any" and len(pieces) == 1 and not isinstance(pieces[0], str):
            given = schema.with_strings(pieces[0])
            if given is None or isinstance(given, list | dict):
                return given
        return "".join(map(str, pieces))

    def _is_template(self, text: str, jinja_env: Any) -> bool:
        marks = (
            jinja_env.variable_start_string,
            jinja_env.block_start_string,
            jinja_env.comment_start_string,
            jinja_env.line_statement_prefix,
            jinja_env.line_comment_prefix,
        )
        return text.endswith(tuple(self.template_ext)) or any(mark in text for mark in marks if mark)


def _is_native(jinja_env: Any) -> bool:
    from jinja2.nativetypes import NativeEnvironment

    return isinstance(jinja_env, NativeEnvironment)


def rendered_pieces(template: Any, context: Context) -> list[Any]:
    """
    Return the values of a native template's pieces, before Jinja joins them and evaluates the result as a literal.

    Like Airflow's own ``render_template``, this avoids evaluating the whole context.
    """
    known: Any = copy.copy(context)
    known.update((name, value) for name, value in template.globals.items() if name not in known)
    jinja_env = template.environment
    try:
        return list(
            template.root_render_func(jinja_env.context_class(jinja_env, known, template.name, template.blocks))
        )
    except Exception:
        jinja_env.handle_exception()  # raises the exception again, with the template's lines in the traceback
        raise
