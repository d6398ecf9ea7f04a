"""What goes in comes out equal, or is refused by name."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, namedtuple
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_rayjobs.functions.shipped import values
from airflow_provider_rayjobs.functions.shipped.values import KIND, MAX_DEPTH, dumps, loads
from tests.support.generated import VALUES, same

BERLIN = ZoneInfo("Europe/Berlin")


@settings(max_examples=200)
@given(VALUES)
@example(datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1))
@example(datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN))  # an hour that does not exist
@example({KIND: "datetime", "value": "text"})
@example(float("-inf"))
@example(-0.0)
@example(Decimal("sNaN"))
def test_what_goes_in_comes_out_equal(value: Any) -> None:
    text = dumps(value, "value")
    assert text.isascii()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert same(loads(text), value)


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    A = "a"


Point = namedtuple("Point", "x y")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@dataclass(frozen=True)
class Spot:
    x: int


endless: list[Any] = []
endless.append(endless)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"when": [1, object()]}, "op_kwargs['when'][1] is of type object"),
        ({"a": Colour.RED}, "op_kwargs['a'] is of type tests.unit.functions.shipped.test_values.Colour"),
        ({"a": Word.A}, ".value"),
        ({"a": Point(1, 2)}, "._asdict()"),
        ({"a": {(1, Spot(2))}}, "op_kwargs['a'] is of type set, which has no JSON form; it holds dataclasses"),
        ({"a": {1: 2}}, "op_kwargs['a'] has the key 1 of type int"),
        ({Word.A: 2}, "has the key"),
        ({"a": {b"x": 2}}, "has the key b'x'"),
        ({"a": Fraction(1, 3)}, "fractions.Fraction"),
        ({"a": 1j}, "complex"),
        ({"a": bytearray(b"x")}, "bytearray"),
        ({"a": range(3)}, "range"),
        ({"a": len}, "op_kwargs['a']"),
        ({"a": (i for i in "ab")}, "generator"),
        ({"a": Colour}, "op_kwargs['a']"),
        ({"a": time(2, 30, tzinfo=BERLIN)}, "pass a datetime"),
        ({"a": 1 << 20_000}, "op_kwargs['a'] is an integer of more than"),
        ({"a": {1 + 2j}}, "an item of op_kwargs['a']"),
        ({"a": endless}, "contains itself"),
        ({"a": nested(MAX_DEPTH + 1)}, f"deeper than {MAX_DEPTH}"),
        ({"a": SimpleNamespace(x=1)}, "types.SimpleNamespace"),
        ({"a": type("ndarray", (), {"__module__": "numpy", "ndim": 1})()}, "numpy.ndarray"),
    ],
)
def test_what_has_no_form_is_refused_by_name(value: Any, said: str) -> None:
    with pytest.raises(TypeError) as refused:
        dumps(value, "op_kwargs")
    assert said in str(refused.value)


@dataclass
class Shard:
    name: str
    parts: list[Any] = field(default_factory=list)


class Ratio(float):
    pass


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Shard("a", [Shard("b"), (1,)]), {"name": "a", "parts": [{"name": "b", "parts": []}, (1,)]}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Ratio(0.5), 0.5),
        (pendulum.duration(months=1, hours=2), timedelta(days=30, hours=2)),
        (pendulum.datetime(2026, 1, 2, tz="Europe/Berlin"), datetime(2026, 1, 2, tzinfo=BERLIN)),
        (pendulum.datetime(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)),
        (pendulum.date(2026, 1, 2), pendulum.date(2026, 1, 2)),
        (type("int64", (), {"__module__": "numpy", "ndim": 0, "item": lambda self: 7})(), 7),
    ],
)
def test_kin_of_plain_types_becomes_the_plain_type(value: Any, arrives: Any) -> None:
    assert loads(dumps(value, "value")) == arrives


def test_airflows_own_containers_become_lists_and_dicts() -> None:
    class Lazy(Sequence):  # type: ignore[type-arg]
        """As the XComs of a mapped task come."""

        __module__ = "airflow.sdk.execution_time.lazy_sequence"

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: Any) -> Any:
            return [{"a": 1}, {"a": 2}][index]

    assert loads(dumps(Lazy(), "parts")) == [{"a": 1}, {"a": 2}]
    params = DAG("dag", schedule=None, params={"a": 1, "b": "x"}).params
    assert not isinstance(params, dict)
    assert loads(dumps(params, "params")) == {"a": 1, "b": "x"}


def test_a_zone_that_the_other_machine_does_not_know_becomes_its_offset() -> None:
    encoded = values.encode(datetime(2026, 7, 1, tzinfo=BERLIN), "value")
    decoded = values.decode({**encoded, "zone": "Mars/Olympus_Mons"})
    assert decoded.isoformat() == "2026-07-01T00:00:00+02:00"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nil",
        '{"__rayjobs__":"pickle","value":"gASV"}',
        '{"__rayjobs__":"uuid"}',
        '{"__rayjobs__":["a"]}',
        '{"__rayjobs__":"decimal","value":"x"}',
        '{"__rayjobs__":"set","value":[[1]]}',
        '{"__rayjobs__":"dict","value":[1]}',
        '{"__rayjobs__":"timedelta","value":[1e300,0,0]}',
        "[" * 10_000,
        "1" * 5000,
    ],
    ids=range(12),
)
def test_malformed_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from([KIND, "value", "zone"]), inner | st.sampled_from(sorted(values._DECODERS))
            )
        ),
    )
)
def test_whatever_a_cluster_sends_is_a_value_or_a_value_error(data: Any) -> None:
    with suppress(ValueError):
        loads(json.dumps(data))


def test_a_dataclass_that_an_older_ray_sent_keeps_its_fields() -> None:
    @dataclass
    class Part:
        kind: ClassVar[str] = "x"
        number: int = 1

    for one in Part.__dataclass_fields__.values():  # what cloudpickle before 3.0 makes of a class sent by value
        one._field_type = object()  # type: ignore[attr-defined]  # dataclasses' own, private
    assert loads(dumps(Part(2), "part")) == {"number": 2}
