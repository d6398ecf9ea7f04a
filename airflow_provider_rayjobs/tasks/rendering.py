"""
Rendering of template fields that keeps strings as strings.

With ``render_template_as_native_obj`` Airflow evaluates each string of a template field as a Python literal, even if it
has no template (``jinja2.nativetypes.native_concat``): the environment variable ``"8080"`` becomes a number, and
``"3.10"`` becomes 3.1. This module leaves strings without a template unchanged. A template renders to the same string
as without that option, unless its field also accepts a list or dict.

DAG files import this module, so it loads only what the mixin needs; methods import the rest.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, redact

from airflow_provider_rayjobs.kubernetes.given import is_to_be_made

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_rayjobs.tasks.template_schemas import Schema

    Renders = BaseOperator
else:
    Renders = object


def _schema(task: Any, parent: Any, name: str) -> Schema | None:
    from airflow_provider_rayjobs.tasks.template_schemas import CLUSTER_SCHEMAS, SCHEMAS

    if parent is task:
        return SCHEMAS.get(name)
    return CLUSTER_SCHEMAS.get(name) if is_to_be_made(parent) else None


class RendersTexts(Renders):
    """Mixin of the operators and sensors: a template gives the same job, however Airflow renders it."""

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        """
        Render the fields. This private method is the only one that Airflow also calls for a mapped task.

        :raises AirflowFailException: if a field has characters that Airflow's database can't store.
        """
        from airflow_provider_rayjobs.text.safe_text import is_safe

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
