"""
How template fields are rendered: what stands in a place for a text stays a text.

With ``render_template_as_native_obj`` Airflow reads each text of a template field as a Python literal, be it a template
or not (``jinja2.nativetypes.native_concat``): the environment variable ``"8080"`` becomes a number, and ``"3.10"`` the
number 3.1. Here a text without a template stays as it is, and a template gives the same text as without that option,
unless a list or dict may stand in its place.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, redact

from airflow_provider_rayjobs.text.safe_text import is_safe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.providers.common.compat.sdk import BaseOperator, Context

    Renders = BaseOperator
else:
    Renders = object


@dataclass(frozen=True)
class Place:
    """
    A template field, or a part of one.

    :param kind: what a template in it gives: ``text``; ``either`` a text, or the list or dict that the template names;
        or a ``value``, as Airflow reads it.
    :param inside: the places in it by key, with ``*`` for all others, and for the items of a list; by default like
        itself.
    """

    kind: str
    inside: Mapping[str, Place] = field(default_factory=dict)

    def at(self, key: Any) -> Place:
        """Return the place of a key or an index."""
        return self.inside.get(key) or self.inside.get("*") or self

    def as_texts(self, value: Any) -> Any:
        """Return what a template gave for this place, with texts for the numbers where texts belong."""
        if isinstance(value, Mapping):
            return {key: self.at(key).as_texts(item) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [self.at(i).as_texts(item) for i, item in enumerate(value)]
        return str(value) if self.kind != "value" and isinstance(value, int | float) else value


TEXT = Place("text")
VALUE = Place("value")
#: A text, or a list of texts.
TEXTS = Place("either", {"*": TEXT})
#: A dict of texts.
PAIRS = Place("value", {"*": TEXT})
#: A text, or lists and dicts that hold such, but for the switches of an installer.
DESCRIPTION = Place("either", {"pip_check": VALUE, "uv_check": VALUE})

#: The template fields whose places are known; others, such as a function's arguments, are Airflow's alone.
PLACES = {
    "entrypoint": TEXTS,
    "secret_env_vars": PAIRS,
    "submission_id": TEXT,
    "metadata": PAIRS,
    "entrypoint_num_cpus": TEXT,  # the text of a number, as for the following ones
    "entrypoint_num_gpus": TEXT,
    "entrypoint_memory": TEXT,
    "entrypoint_resources": PAIRS,
    "entrypoint_label_selector": PAIRS,
    "ray_conn_id": TEXT,
    "job_timeout": TEXT,
    "pending_timeout": TEXT,
    "result_path": TEXT,
    "target_statuses": TEXTS,
    "runtime_env": Place(
        "value",
        {
            "env_vars": PAIRS,
            "working_dir": DESCRIPTION,
            "py_modules": DESCRIPTION,
            "py_executable": DESCRIPTION,
            "java_jars": DESCRIPTION,
            "pip": DESCRIPTION,
            "uv": DESCRIPTION,
            "conda": DESCRIPTION,
            "container": DESCRIPTION,
            "image_uri": DESCRIPTION,
            "excludes": DESCRIPTION,
            "worker_process_setup_hook": DESCRIPTION,
            "*": VALUE,
        },
    ),
}


class RendersTexts(Renders):
    """What the operators and sensors share: templates that give the same job, however Airflow renders them."""

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        """
        Render; of a mapped task Airflow calls no other method of ours, so this one is overridden.

        :raises AirflowFailException: a field holds what Airflow can't keep in its database, which it would find out
            with an error of its own.
        """
        for name in template_fields:
            place = PLACES.get(name) if parent is self else None
            value = getattr(parent, name, None)
            if place is None or not isinstance(value, str | dict | list | tuple):
                super()._do_render_template_fields(parent, [name], context, jinja_env, seen_oids)
                continue
            try:
                rendered = self._render_at(place, value, context, jinja_env, seen_oids)
            except Exception:
                shown = redact(value, name)
                self.log.exception("Template field %r of task %r can't be rendered: %r", name, self.task_id, shown)
                raise
            setattr(self, name, rendered)
        for name in template_fields if parent is self else ():
            if not is_safe(getattr(self, name, None)):
                raise AirflowFailException(
                    f"Template field {name!r} of task {self.task_id!r} holds a NUL character, or half of a surrogate "
                    "pair; neither a process nor Airflow's database takes these"
                )

    def _render_at(self, place: Place, value: Any, context: Context, jinja_env: Any, seen_oids: set[int]) -> Any:
        if id(value) in seen_oids:  # of a mapped task: it is rendered
            return value
        if isinstance(value, dict):
            return {k: self._render_at(place.at(k), v, context, jinja_env, seen_oids) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._render_at(place.at(i), v, context, jinja_env, seen_oids) for i, v in enumerate(value)]
        if isinstance(value, str) and not self._is_template(value, jinja_env):
            return value
        if not isinstance(value, str) or not _is_native(jinja_env) or value.endswith(tuple(self.template_ext)):
            return self.render_template(value, context, jinja_env, seen_oids)
        if place.kind == "value":
            return place.as_texts(self.render_template(value, context, jinja_env, seen_oids))
        parts = _parts(jinja_env.from_string(value), context)
        if place.kind == "either" and len(parts) == 1 and not isinstance(parts[0], str):
            given = place.as_texts(parts[0])
            if given is None or isinstance(given, list | dict):
                return given
        return "".join(map(str, parts))

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


def _parts(template: Any, context: Context) -> list[Any]:
    """
    Return what the parts of a native template give, before they become one text, and that is read as a literal.

    It is done as Airflow's own ``render_template`` does it, which keeps the context from being read as a whole.
    """
    known: Any = copy.copy(context)
    known.update((name, value) for name, value in template.globals.items() if name not in known)
    jinja_env = template.environment
    try:
        return list(
            template.root_render_func(jinja_env.context_class(jinja_env, known, template.name, template.blocks))
        )
    except Exception:
        jinja_env.handle_exception()  # raises it with the template's own lines in its traceback
        raise
