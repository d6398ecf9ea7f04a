"""The facets as OpenLineage's client writes them; only in the environments of `make lineage`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_rayjobs.observability import lineage
from tests.support import lineage_schemas

pytest.importorskip("openlineage.client", reason="the extra `openlineage` is not installed; see `make lineage`")


def written(facet: Any) -> Any:
    from openlineage.client.serde import Serde

    return json.loads(Serde.to_json(facet))


def test_both_are_written_with_their_schemas() -> None:
    facts = lineage.JobFacts("raysubmit_1", "http://ray:8265", "2.60.0")
    submission = lineage.submission_fields("true", "ray_default", facts)
    outcome = {"submissionId": "raysubmit_1", "status": "FAILED", "exitCode": 0}
    told = lineage.operator_lineage(submission, outcome)
    for facets, name, fields in (
        (told.job_facets, "rayjobs_submission", submission),
        (told.run_facets, "rayjobs_outcome", outcome),
    ):
        facet = written(facets[name])
        lineage_schemas.check(facet, facet["_schemaURL"])
        assert {key: value for key, value in facet.items() if not key.startswith("_")} == fields
        assert facet["_producer"] == lineage.PRODUCER
    assert (told.inputs, told.outputs) == ([], [])


def test_before_the_end_there_is_no_outcome() -> None:
    assert lineage.operator_lineage({}, None).run_facets == {}
