"""The tree of errors: what a caller may catch, and what survives on the way between processes."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from airflow_provider_rayjobs import exceptions as errors

#: Each error of the tree, what else it is, and one with everything that it can carry.
ERRORS: list[tuple[Any, tuple[type[Exception], ...]]] = [
    (errors.RayJobsError("m"), (RuntimeError,)),
    (errors.RayConnectionConfigError("ray_x", "host", "is wrong"), (errors.RayJobsError, ValueError)),
    (errors.RayPackageError("m"), (errors.RayJobsError, ValueError)),
    (errors.RayPackageTooLargeError("m"), (errors.RayPackageError,)),
    (errors.RayClusterUnreachableError("m", maybe_sent=False), (errors.RayJobsError, ConnectionError)),
    (errors.RayTLSError("m", maybe_sent=False), (errors.RayClusterUnreachableError,)),
    (errors.RayAPIError("m", status=500), (errors.RayJobsError,)),
    (errors.RayRequestRefusedError("m", status=400), (errors.RayAPIError,)),
    (errors.RayAuthError("m", status=401), (errors.RayRequestRefusedError,)),
    (errors.RayJobNotFoundError("m", status=404), (errors.RayAPIError,)),
    (errors.RayJobExistsError("m", status=500), (errors.RayAPIError,)),
    (errors.RayProtocolError("m", status=200), (errors.RayAPIError,)),
    (errors.RayKubernetesError("m", status=500), (errors.RayJobsError,)),
    (errors.RayKubernetesRefusedError("m", status=403), (errors.RayKubernetesError,)),
    (errors.RayClusterStartError("m"), (errors.RayKubernetesError, TimeoutError)),
    (errors.RayServeDeployError("m", statuses={"a": "DEPLOY_FAILED"}, rolled_back=True), (errors.RayJobsError,)),
    (errors.RayServeTimeoutError("m", statuses={"a": "DEPLOYING"}), (errors.RayServeDeployError, TimeoutError)),
    (errors.RayJobError("m", submission_id="a"), (errors.RayJobsError,)),
    (errors.RayJobFailedError("m", submission_id="a"), (errors.RayJobError,)),
    (errors.RayJobStoppedError("m", submission_id="a"), (errors.RayJobError,)),
    (errors.RayJobInterruptedError("m", submission_id="a"), (errors.RayJobError,)),
    (
        errors.RayJobLostError("m", submission_id="a", may_run=False, node_id="ab", node_ip="10.0.0.7"),
        (errors.RayJobError,),
    ),
    (errors.RayJobResultError("m", submission_id="a"), (errors.RayJobError,)),
    (errors.RayJobTimeoutError("m", submission_id="a"), (errors.RayJobError, TimeoutError)),
]
IDS = [type(error).__name__ for error, _ in ERRORS]


def test_every_error_is_here() -> None:
    found = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert found == set(IDS)


@pytest.mark.parametrize(("error", "parents"), ERRORS, ids=IDS)
def test_an_error_is_caught_by_its_parents(error: Exception, parents: tuple[type[Exception], ...]) -> None:
    assert type(error).__bases__ == parents
    assert isinstance(error, RuntimeError)


@pytest.mark.parametrize("error", [error for error, _ in ERRORS], ids=IDS)
def test_an_error_survives_the_way_to_another_process(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_losing_contact_is_neither_an_answer_nor_the_end_of_a_job() -> None:
    assert not issubclass(errors.RayClusterUnreachableError, errors.RayAPIError | errors.RayJobError)


def test_facts_are_attributes() -> None:
    lost = errors.RayJobLostError("m", submission_id="a", may_run=False, node_id="ab", node_ip="10.0.0.7")
    assert vars(lost) == {"submission_id": "a", "may_run": False, "node_id": "ab", "node_ip": "10.0.0.7"}
    lost_contact = errors.RayClusterUnreachableError("m", maybe_sent=False, address="http://ray:8265")
    assert vars(lost_contact) == {"maybe_sent": False, "address": "http://ray:8265"}
    refused = errors.RayAuthError("m", status=401, address="http://ray:8265", reason="no token")
    assert vars(refused) == {"status": 401, "address": "http://ray:8265", "reason": "no token"}


def test_what_is_not_known_is_said_with_care() -> None:
    assert errors.RayClusterUnreachableError("m").maybe_sent is True
    assert errors.RayJobLostError("m").may_run is True
    assert errors.RayAPIError("m").status is None
    assert errors.RayJobError("m").submission_id == ""


def test_a_wrong_connection_names_itself_and_its_field() -> None:
    error = errors.RayConnectionConfigError("ray_x", "host", "is empty; write http://host:port")
    assert str(error) == "Connection 'ray_x', field 'host': is empty; write http://host:port"
    assert (error.conn_id, error.field, error.problem) == ("ray_x", "host", "is empty; write http://host:port")
    assert str(errors.RayConnectionConfigError("ray_x", "", "has no type")) == "Connection 'ray_x' has no type"
