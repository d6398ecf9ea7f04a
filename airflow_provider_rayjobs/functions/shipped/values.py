"""
Converts arguments and results to JSON and back: a value comes out equal, or is refused by name.

JSON has strings, finite numbers, true, false, null, lists, and objects with strings as keys. Other supported types
become an object with the key ``__rayjobs__``, which names the kind:

========================== =================================================================================
``float``                  NaN and the infinities
``tuple set frozenset``    a list of their items
``bytes``                  Base64
``datetime``               ISO 8601, with the name of the time zone if it has one, and ``fold``
``date time``              ISO 8601; a time with a time zone only if that is a fixed offset
``timedelta``              days, seconds, microseconds
``decimal uuid``           their string
``dict``                   a list of pairs, for a dict that has the key ``__rayjobs__`` itself
========================== =================================================================================

A dataclass becomes the dict of its fields, a NumPy number the equal Python number, and Airflow's own sequences and
mappings (the XComs of a mapped task, ``params``) become lists and dicts. Subclasses of the types above become those
types, if the two are equal; an enum or a named tuple is refused, because it would lose its meaning.

This module is shipped to the cluster: it needs the standard library only, of Python 3.9 or newer.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

KIND = "__rayjobs__"

#: Deepest nesting of containers. Python's own limit is about 1,000, and may differ between the two sides.
MAX_DEPTH = 100

#: Python parses integers of at most 4,300 digits.
MAX_INTEGER_BITS = 14_000


def dumps(value: Any, name: str) -> str:
    """
    Return a value's JSON text, in ASCII.

    :param value: the value.
    :param name: what the value is, for messages.
    :raises TypeError: if a part of it has no JSON form; the message names that part.
    """
    return json.dumps(encode(value, name), allow_nan=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """
    Return the value of a JSON text that :func:`dumps` made.

    :raises ValueError: if the text is malformed.
    """
    try:
        return decode(json.loads(text))
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as e:
        raise ValueError(f"malformed value: {e!r}") from None


def encode(value: Any, name: str, depth: int = 0) -> Any:
    """
    Return a value as JSON's own types.

    :param value: the value.
    :param name: what the value is, for messages.
    :param depth: how many containers it is in.
    :raises TypeError: if a part of it has no JSON form; the message names that part.
    """
    if depth > MAX_DEPTH:
        raise TypeError(f"{name[:200]} is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, enum.Enum):
        raise _refused(value, name, "pass its .value")
    for types, encoder in _ENCODERS:
        if isinstance(value, types):
            return encoder(value, name, depth)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _encode_dict({field: getattr(value, field) for field in _field_names(value)}, name, depth)
    return _encode_foreign(value, name, depth)


def _field_names(value: Any) -> list[str]:
    """Return a dataclass's fields; if Ray before 2.30 sent the class by value, ``dataclasses.fields`` finds none."""
    names = [field.name for field in dataclasses.fields(value)]
    return names or [name for name in value.__dataclass_fields__ if name in getattr(value, "__dict__", ())]


def _encode_foreign(value: Any, name: str, depth: int) -> Any:
    """Encode types of libraries that stand for Python's own types."""
    module = type(value).__module__.partition(".")[0]
    if module == "airflow" and isinstance(value, Mapping):
        return _encode_dict(dict(value), name, depth)
    if module == "airflow" and isinstance(value, Sequence):
        return _encode_items(value, name, depth)
    if module == "numpy" and getattr(value, "ndim", None) == 0:
        number = value.item()
        if isinstance(number, (bool, int, float, str)):
            return encode(number, name, depth)
    raise _refused(value, name, "convert it to strings, numbers, lists and dicts")


def _refused(value: Any, name: str, remedy: str) -> TypeError:
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return TypeError(f"{name} is of type {module}{kind.__qualname__}, which has no JSON form; {remedy}")


def _encode_int(value: int, name: str, depth: int) -> int:
    if value.bit_length() > MAX_INTEGER_BITS:
        raise TypeError(f"{name} is an integer of more than {MAX_INTEGER_BITS} bits; pass it as a string")
    return int(value)


def _encode_float(value: float, name: str, depth: int) -> Any:
    return float(value) if math.isfinite(value) else {KIND: "float", "value": str(float(value))}


def _encode_items(value: Any, name: str, depth: int) -> list[Any]:
    return [encode(item, f"{name}[{i}]", depth + 1) for i, item in enumerate(value)]


def _encode_tuple(value: Any, name: str, depth: int) -> dict[str, Any]:
    if hasattr(value, "_fields"):
        raise _refused(value, name, "pass its ._asdict()")
    return {KIND: "tuple", "value": _encode_items(value, name, depth)}


def _encode_set(value: Any, name: str, depth: int) -> dict[str, Any]:
    kind = "set" if isinstance(value, set) else "frozenset"
    if any(map(_holds_dataclass, value)):
        raise _refused(value, name, "it holds dataclasses, which become dicts, and a set can't hold dicts; pass a list")
    return {KIND: kind, "value": [encode(item, f"an item of {name}", depth + 1) for item in value]}


def _holds_dataclass(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(_holds_dataclass, value))
    return dataclasses.is_dataclass(value)


def _encode_dict(value: Any, name: str, depth: int) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str) or isinstance(key, enum.Enum):
            raise TypeError(f"{name} has the key {key!r} of type {type(key).__name__}; keys in JSON must be strings")
    pairs = {str(key): encode(item, f"{name}[{str(key)!r}]", depth + 1) for key, item in value.items()}
    return {KIND: "dict", "value": [list(pair) for pair in pairs.items()]} if KIND in pairs else pairs


def _encode_datetime(value: dt.datetime, name: str, depth: int) -> dict[str, Any]:
    encoded: dict[str, Any] = {KIND: "datetime", "value": dt.datetime.isoformat(value)}
    zone = value.tzinfo
    # zoneinfo and pendulum have a key, pytz has a zone.
    key = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if isinstance(key, str):
        encoded["zone"] = key
    if value.fold:
        encoded["fold"] = value.fold
    if zone is not None and value.utcoffset() is None:
        raise _refused(value, name, "its time zone gives no offset")
    return encoded


def _encode_time(value: dt.time, name: str, depth: int) -> dict[str, Any]:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise TypeError(f"{name} is a time of day in a zone whose offset depends on the date; pass a datetime")
    return {KIND: "time", "value": dt.time.isoformat(value), **({"fold": value.fold} if value.fold else {})}


def _encode_timedelta(value: dt.timedelta, name: str, depth: int) -> dict[str, Any]:
    # A pendulum duration counts its days differently.
    microseconds = dt.timedelta.__floordiv__(value, dt.timedelta(microseconds=1))
    plain = dt.timedelta(microseconds=microseconds)
    return {KIND: "timedelta", "value": [plain.days, plain.seconds, plain.microseconds]}


def _as_text(kind: str, text: Callable[[Any], str]) -> Callable[[Any, str, int], dict[str, Any]]:
    return lambda value, name, depth: {KIND: kind, "value": text(value)}


#: The first match counts: a datetime is a date, too.
_ENCODERS: tuple[tuple[Any, Callable[[Any, str, int], Any]], ...] = (
    (str, lambda value, name, depth: str.__str__(value)),
    (int, _encode_int),
    (float, _encode_float),
    (list, _encode_items),
    (dict, _encode_dict),
    (tuple, _encode_tuple),
    ((set, frozenset), _encode_set),
    (bytes, _as_text("bytes", lambda value: base64.b64encode(value).decode())),
    (dt.datetime, _encode_datetime),
    (dt.date, _as_text("date", dt.date.isoformat)),
    (dt.time, _encode_time),
    (dt.timedelta, _encode_timedelta),
    (decimal.Decimal, _as_text("decimal", str)),
    (uuid.UUID, _as_text("uuid", str)),
)


def decode(value: Any) -> Any:
    """
    Return the value that :func:`encode` turned into JSON's own types.

    :raises ValueError: if its kind is unknown; a malformed value may raise other errors, too.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if KIND not in value:
        return {key: decode(item) for key, item in value.items()}
    decoder = _DECODERS.get(value[KIND])
    if decoder is None:
        raise ValueError(f"a value of the unknown kind {value[KIND]!r}")
    return decoder(value)


def _decode_datetime(value: dict[str, Any]) -> dt.datetime:
    decoded = dt.datetime.fromisoformat(value["value"])
    zone = _zone(value.get("zone"))
    if zone is not None:
        local = decoded.replace(tzinfo=zone, fold=value.get("fold", 0))
        if local.utcoffset() == decoded.utcoffset():  # else the two machines differ on the zone's rules
            return local
    return decoded.replace(fold=value.get("fold", 0))


def _zone(name: str | None) -> dt.tzinfo | None:
    if name is None:
        return None
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # this machine does not know the zone: keep the offset
        return None


_DECODERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "float": lambda value: float(value["value"]),
    "tuple": lambda value: tuple(decode(value["value"])),
    "set": lambda value: set(decode(value["value"])),
    "frozenset": lambda value: frozenset(decode(value["value"])),
    "dict": lambda value: {key: decode(item) for key, item in value["value"]},
    "bytes": lambda value: base64.b64decode(value["value"], validate=True),
    "datetime": _decode_datetime,
    "date": lambda value: dt.date.fromisoformat(value["value"]),
    "time": lambda value: dt.time.fromisoformat(value["value"]).replace(fold=value.get("fold", 0)),
    "timedelta": lambda value: dt.timedelta(*value["value"]),
    "decimal": lambda value: decimal.Decimal(value["value"]),
    "uuid": lambda value: uuid.UUID(value["value"]),
}
