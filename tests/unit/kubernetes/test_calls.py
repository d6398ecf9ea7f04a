"""Calls as the clients' methods."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayjobs.kubernetes import calls


def test_a_call_names_the_clients_method() -> None:
    call = calls.get(calls.RAYJOBS, "ray", "x")
    assert call.method == "get_namespaced_custom_object"
    assert call.keywords == {"group": "ray.io", "version": "v1", "plural": "rayjobs", "namespace": "ray", "name": "x"}
    call = calls.listed(calls.PODS, "ray", label_selector="a=b")
    assert call.method == "list_namespaced_pod"
    assert call.keywords == {"namespace": "ray", "label_selector": "a=b", "limit": calls.MOST_LISTED}


@pytest.mark.parametrize("value", [None, [], "text", {"a": None}, {"a": []}, {"a": {"b": 7}}])
def test_parts_of_an_object_of_any_shape(value: Any) -> None:
    assert calls.text_at(value, "a", "b") == ""
    assert calls.items_of(value, "a", "b") == []


def test_parts_of_an_object() -> None:
    value = {"a": {"b": "text", "c": [{"x": 1}, "stray"]}}
    assert calls.text_at(value, "a", "b") == "text"
    assert calls.items_of(value, "a", "c") == [{"x": 1}]
    assert calls.part(value, "a", "d") is None
