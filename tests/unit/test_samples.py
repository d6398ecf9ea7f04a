"""What the protocol makes of each answer that a supported Ray gave: see ``tests/samples/record.py``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs import job_list, packages, protocol, resources
from airflow_provider_rayjobs.answers import error_of
from airflow_provider_rayjobs.logs import LineWriter
from airflow_provider_rayjobs.protocol import JobDetails, JobStatus, Request
from tests.samples import record
from tests.support import samples
from tests.support.ray_head import LABEL_SELECTOR_SINCE
from tests.support.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.protocol import Flow

VERSIONS = samples.versions()
START, END = 1767225600000, 1767225605000


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return samples.number(request.param)


@pytest.fixture
def recorded(version: tuple[int, ...]) -> dict[str, Sample]:
    return samples.read(".".join(map(str, version)))


def outcome(flow: Flow[Any], sample: Sample) -> Any:
    """Run a flow that asks once; return what it makes of the answer."""
    request = next(flow)
    assert isinstance(request, Request)
    assert f"{request.method} {request.path}" == sample.request
    with pytest.raises(StopIteration) as done:
        flow.send(sample.response)
    return done.value.value


def test_the_oldest_and_the_newest_are_there() -> None:
    assert (VERSIONS[0].rpartition(".")[0], VERSIONS[-1]) == ("2.8", "2.60.0")
    assert len(VERSIONS) >= 5


def test_every_answer_is_read_here(recorded: dict[str, Sample]) -> None:
    assert set(recorded) == {*JOBS, *VALUES, *REFUSALS, *OTHERS}


VALUES: dict[str, tuple[Callable[[], Flow[Any]], Any]] = {
    "stop_running": (lambda: protocol.stop_job("sleeps"), True),
    "stop_pending": (lambda: protocol.stop_job("waits"), True),
    "stop_ended": (lambda: protocol.stop_job("fails"), False),
    "delete_ended": (lambda: protocol.delete_job("fails"), True),
    "package_missing": (lambda: packages.has_package(record.PACKAGE), False),
    "package_there": (lambda: packages.has_package(record.PACKAGE), True),
    "package_put": (lambda: packages.put_package(record.PACKAGE, record.NOTHING), True),
    "package_too_large": (lambda: packages.put_package(record.PACKAGE, record.NOTHING), False),
    "cluster_status": (resources.describe_resources, "1 node, 2 of 2 CPUs free"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_verb_returns_what_ray_said(recorded: dict[str, Sample], name: str) -> None:
    flow, value = VALUES[name]
    assert outcome(flow(), recorded[name]) == value


NOT_FOUND = (errors.RayJobNotFoundError, r"Job unknown does not exist$")
REFUSED = errors.RayRequestRefusedError
REFUSALS: dict[str, tuple[type[errors.RayJobsError], str]] = {
    "get_unknown": NOT_FOUND,
    "stop_unknown": NOT_FOUND,
    "delete_unknown": NOT_FOUND,
    "logs_unknown": NOT_FOUND,
    "delete_running": (errors.RayAPIError, r"HTTP 500: .*it is in a non-terminal state RUNNING"),
    "submit_duplicate": (errors.RayJobExistsError, "Job with submission_id fails already exists"),
    "submit_no_entrypoint": (REFUSED, "Ray refused the request: TypeError: .*missing 1 required .*'entrypoint'"),
    "submit_bad_cpus": (REFUSED, "TypeError: entrypoint_num_cpus must be a number"),
    "submit_bad_resources": (REFUSED, "TypeError: entrypoint_resources must be a dict"),
    "submit_bad_metadata": (REFUSED, "TypeError: metadata values must be strings"),
    "submit_bad_runtime_env": (REFUSED, "TypeError: runtime_env must be a dict"),
    "submit_bad_pip": (REFUSED, "TypeError: runtime_env.*pip"),
    "submit_unknown_field": (REFUSED, "TypeError: .*unexpected keyword argument 'of_a_later_ray'"),
    "no_such_route": (errors.RayProtocolError, "no such route"),
    "log_file_missing": (errors.RayAPIError, "not found"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_told_by_its_kind_and_in_rays_words(recorded: dict[str, Sample], name: str) -> None:
    kind, words = REFUSALS[name]
    error = error_of(recorded[name].response)
    assert type(error) is kind
    assert re.match("http://ray:8265: ", str(error))
    assert re.search(words, str(error))
    assert "\n" not in str(error)


#: The jobs of `record`, each in the status that it has when it is looked at.
JOBS = {
    "get_pending": JobDetails(
        "SUBMISSION", JobStatus.PENDING, "waits", entrypoint="true", start_time=START
    ),
    "get_running": JobDetails(
        "SUBMISSION", JobStatus.RUNNING, "sleeps", entrypoint="sleep 1000", start_time=START
    ),
}

OTHERS: set[str] = set()
