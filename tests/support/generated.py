"""Hypothesis strategies for all values that can be sent to the cluster and back."""

from __future__ import annotations

import math
from datetime import timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from airflow_provider_rayjobs.functions.shipped.values import KIND

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXTS = st.text() | st.text(st.characters(codec=None)) | st.sampled_from([KIND, "\x00", "\ud800", "<frame>\n"])
_OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_ZONES = st.none() | _OFFSETS | st.timezones()

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | _TEXTS
    | st.binary()
    | st.datetimes(timezones=_ZONES)
    | st.dates()
    | st.times(timezones=st.none() | _OFFSETS)
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
)
_HASHABLE = st.integers() | _TEXTS | st.dates() | st.uuids() | st.tuples(st.integers(), _TEXTS)
VALUES = st.recursive(
    LEAVES | st.sets(_HASHABLE, max_size=5) | st.frozensets(_HASHABLE, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(_TEXTS, inner, max_size=5)
    ),
    max_leaves=15,
)


def same(a: Any, b: Any) -> bool:
    """Return whether two values have the same type and are equal; NaN equals itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, Decimal):
        return str(a) == str(b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if hasattr(a, "utcoffset"):
        return a == b and a.utcoffset() == b.utcoffset() and a.fold == b.fold
    return bool(a == b)


def integers(value: Any) -> Iterator[int]:
    """Yield the integers in a value, at any level."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from integers(item)
    elif isinstance(value, int):
        yield value
