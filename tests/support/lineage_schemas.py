"""Checks OpenLineage's events by the schemas of OpenLineage, of Airflow's provider and of this one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

import airflow_provider_rayjobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Schemas of OpenLineage; see the README there.
SPEC = Path(__file__).parents[1] / "lineage" / "spec"

OURS = Path(airflow_provider_rayjobs.__file__).parent / "observability" / "schemas"

_EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"


def _read() -> Registry[Any]:
    schemas = [json.loads(file.read_text()) for folder in (SPEC, OURS) for file in folder.glob("*.json")]
    return Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in schemas)


_REGISTRY = _read()


def check(value: Any, schema: str | Mapping[str, Any]) -> None:
    """Raise jsonschema's ``ValidationError`` if a value does not have this schema, given itself or by its URL."""
    found = {"$ref": schema} if isinstance(schema, str) else schema
    Draft202012Validator(found, registry=_REGISTRY, format_checker=FormatChecker()).validate(value)


def check_event(event: Mapping[str, Any]) -> set[str]:
    """
    Check an event, and all its facets whose schemas are known.

    :return: the names of these facets.
    """
    check(event, _EVENT)
    return {name for name, facet in _facets(event) if _is_checked(facet)}


def _facets(event: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from event["run"]["facets"].items()
    yield from event["job"]["facets"].items()


def _is_checked(facet: dict[str, Any]) -> bool:
    url = facet["_schemaURL"]
    if url.partition("#")[0] in _REGISTRY:
        check(facet, url)
        return True
    found = importlib.util.find_spec("airflow.providers.openlineage")
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / "facets" / url.partition("#")[0].rpartition("/")[2]
    if not file.is_file():
        return False
    check(facet, json.loads(file.read_text()))
    return True
