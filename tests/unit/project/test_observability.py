"""The page about metrics and traces, and the dashboard, have what the code sends, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_rayjobs.observability.metrics import METRICS, OWN_CAUSES, RAYS_CAUSES, Kind
from airflow_provider_rayjobs.observability.traces import ATTRIBUTES, SPANS

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "observability.md").read_text()
DASHBOARD = json.loads((DOCS / "grafana" / "ray-jobs.json").read_text())

#: What `statsd_exporter` makes of each kind: the endings of its names.
ENDINGS = {Kind.COUNTER: ("",), Kind.GAUGE: ("",), Kind.TIMER: ("", "_sum", "_count")}
EXPORTED = {
    f"airflow_{metric.name.replace('.', '_')}{ending}": metric for metric in METRICS for ending in ENDINGS[metric.kind]
}


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this heading."""
    rows = re.search(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert rows is not None, heading
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[1].splitlines()]


def test_the_page_lists_each_metric_as_it_is() -> None:
    assert table("Metric") == [
        [
            f"`{metric.name}`",
            str(metric.kind),
            metric.unit,
            ", ".join(f"`{tag}`" for tag in metric.tags),
            metric.meaning,
        ]
        for metric in METRICS
    ]


@pytest.mark.parametrize(
    ("heading", "of_code"),
    [("Cause", OWN_CAUSES), ("Span", SPANS), ("Attribute", ATTRIBUTES)],
    ids=lambda one: str(one)[:9],
)
def test_the_page_lists_causes_spans_and_attributes(heading: str, of_code: dict[str, str]) -> None:
    assert table(heading) == [[f"`{name}`", meaning] for name, meaning in of_code.items()]


def test_the_page_lists_rays_words() -> None:
    assert all(f"`{word.lower()}`" in PAGE for word in RAYS_CAUSES)


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def names_in(text: str) -> set[str]:
    return set(re.findall(r"airflow_[a-z_]+", text))


def test_the_dashboard_shows_each_metric_and_no_other() -> None:
    shown = set().union(*map(names_in, expressions()))
    assert shown <= EXPORTED.keys()
    assert {EXPORTED[name] for name in shown} == set(METRICS)
    variables = json.dumps(DASHBOARD["templating"])
    assert names_in(variables) <= EXPORTED.keys()


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_uses_the_tags_that_its_metric_has(expression: str) -> None:
    for name, labels in re.findall(r"(airflow_[a-z_]+)\{([^}]*)\}", expression):
        metric = EXPORTED[name]
        used = set(re.findall(r"(\w+)=", labels))
        assert used <= {*metric.tags, *(["quantile"] if metric.kind is Kind.TIMER else [])}, expression
        if metric.kind is Kind.COUNTER or name.endswith(("_sum", "_count")):
            assert re.search(rf"(rate|increase)\({name}\{{", expression), "a counter is shown as a rate"
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        (name,) = names_in(expression)
        assert set(grouped.split(", ")) <= set(EXPORTED[name].tags)


def test_the_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], Any] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        for place in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(place, panel["id"]) == panel["id"]
            assert place[0] < 24
