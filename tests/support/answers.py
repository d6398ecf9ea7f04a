"""Names of :mod:`airflow_provider_rayjobs.testing.answers` under which the tests know them."""

from __future__ import annotations

from airflow_provider_rayjobs.testing.answers import (
    Answer,
    already_exists,
    as_json,
    bad_gateway,
    bad_request,
    default,
    drop,
    forbidden,
    html,
    internal_error,
    lost,
    no_agent,
    not_deletable,
    not_found,
    text,
    too_large,
    too_many,
    truncated_json,
    unauthorized,
)

__all__ = [
    "Answer",
    "already_exists",
    "as_json",
    "bad_gateway",
    "bad_request",
    "default",
    "drop",
    "forbidden",
    "html",
    "internal_error",
    "lost",
    "no_agent",
    "not_deletable",
    "not_found",
    "text",
    "too_large",
    "too_many",
    "truncated_json",
    "unauthorized",
]
