"""Retries by cause: by a policy on Airflow 3.3, and by a subclass before."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs import retries
from airflow_provider_rayjobs.jobs import FailedTasks
from airflow_provider_rayjobs.retries import retrying_by_cause

HAS_POLICIES = tuple(map(int, version("apache-airflow").split(".")[:2])) >= (3, 3)


def failed(cause: str = "", exit_code: int | None = 1, **facts: Any) -> errors.RayJobFailedError:
    return errors.RayJobFailedError("Ray job FAILED: why\nmore", cause=cause, exit_code=exit_code, **facts)


RETRIED = {
    "lost": errors.RayJobLostError("m"),
    "deleted": errors.RayJobLostError("m", may_run=False),
    "unreachable": errors.RayClusterUnreachableError("m"),
    "interrupted": errors.RayJobInterruptedError("m"),
    "Kubernetes": errors.RayKubernetesError("m", status=500),
    "no cluster": errors.RayClusterStartError("m"),
    "node": failed("NODE_DIED"),
    "memory": failed("OUT_OF_MEMORY"),
    "supervisor": failed("JOB_SUPERVISOR_ACTOR_DIED", None),
    "node of a task": failed("TASK_EXECUTION_EXCEPTION", failed_tasks=(FailedTasks("NODE_DIED", 1),)),
    "node that no task names": failed("JOB_ENTRYPOINT_COMMAND_ERROR", dead_nodes=("10.0.0.7",)),
    "SIGKILL": failed("JOB_ENTRYPOINT_COMMAND_ERROR", 137),
    "SIGKILL of the shell": failed("JOB_ENTRYPOINT_COMMAND_ERROR", -9),
}
NOT_RETRIED = {
    "exit code": failed("JOB_ENTRYPOINT_COMMAND_ERROR", 3),
    "exit code of an older Ray": failed("", 3),
    "segmentation fault": failed("JOB_ENTRYPOINT_COMMAND_ERROR", 139),
    "exception": failed("TASK_EXECUTION_EXCEPTION", failed_tasks=(FailedTasks("TASK_EXECUTION_EXCEPTION", 2),)),
    "exception, while a node of others died": failed("TASK_EXECUTION_EXCEPTION", dead_nodes=("10.0.0.7",)),
    "exception without an exit code": failed("TASK_EXECUTION_EXCEPTION", None),
    "request": errors.RayRequestRefusedError("m", status=400),
    "credentials": errors.RayAuthError("m", status=401),
    "connection": errors.RayConnectionConfigError("ray_x", "host", "is wrong"),
    "package": errors.RayPackageTooLargeError("m"),
    "id": errors.RayJobExistsError("m"),
    "right": errors.RayKubernetesRefusedError("m", status=403),
}
UNCLEAR = {
    "worker": failed("WORKER_DIED"),
    "no facts": failed("", None),
    "environment": failed("RUNTIME_ENV_SETUP_FAILURE", None),
    "SIGTERM": failed("JOB_ENTRYPOINT_COMMAND_ERROR", 143),
    "stopped": errors.RayJobStoppedError("m"),
    "limit": errors.RayJobTimeoutError("m"),
    "result": errors.RayJobResultError("m"),
    "certificate": errors.RayTLSError("m"),
    "answer": errors.RayProtocolError("m", status=200),
    "package": errors.RayPackageError("m"),
    "deployment": errors.RayServeDeployError("m"),
    "slow deployment": errors.RayServeTimeoutError("m"),
}


def cases(errors: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("error", errors.values(), ids=errors.keys())


@pytest.mark.skipif(not HAS_POLICIES, reason="Airflow before 3.3 has no retry_policy")
class TestPolicy:
    def decision(self, error: BaseException) -> Any:
        made: Any = retries.RayRetryPolicy.deserialize(retries.RayRetryPolicy().serialize())
        return made.evaluate(error, 1, 3, {})

    @cases(RETRIED)
    def test_what_the_cluster_caused_is_retried(self, error: Exception) -> None:
        decision = self.decision(error)
        assert (decision.action.value, decision.retry_delay) == ("retry", None)
        assert decision.reason

    @cases(NOT_RETRIED)
    def test_what_the_program_or_its_input_caused_is_not(self, error: Exception) -> None:
        decision = self.decision(error)
        assert decision.action.value == "fail"
        assert decision.reason

    @cases(UNCLEAR | {"of others": ValueError("x"), "kill": KeyboardInterrupt()})
    def test_else_the_task_decides(self, error: BaseException) -> None:
        decision = self.decision(error)
        assert (decision.action.value, decision.reason) == ("default", None)

    def test_a_reason_names_the_cause(self) -> None:
        assert self.decision(failed("NODE_DIED")).reason == "the cluster is the cause: NODE_DIED"
        assert self.decision(failed("", 3)).reason == "the program failed: exit code 3"

    def test_a_task_takes_it(self) -> None:
        from airflow.sdk import RetryPolicy

        from airflow_provider_rayjobs.operators import RaySubmitJobOperator

        policy = retries.RayRetryPolicy()
        assert isinstance(policy, RetryPolicy)
        made = RaySubmitJobOperator(task_id="t", entrypoint="true", retry_policy=policy)
        assert made.retry_policy is policy


@pytest.mark.skipif(HAS_POLICIES, reason="Airflow has retry_policy")
def test_without_policies_the_import_says_what_to_use() -> None:
    with pytest.raises(
        ImportError, match=rf"needs Airflow 3\.3.*This is Airflow {version('apache-airflow')}: use retr"
    ):
        from airflow_provider_rayjobs.retries import RayRetryPolicy  # noqa: F401
    with pytest.raises(AttributeError, match="no attribute 'RayRetryPolicies'"):
        _ = retries.RayRetryPolicies


@cases(NOT_RETRIED)
def test_in_the_block_a_failing_program_fails_the_task_at_once(error: Exception) -> None:
    with pytest.raises(AirflowFailException, match=r"^[^\n]+ \(not retried: [^\n]+\)$") as raised, retrying_by_cause():
        raise error
    assert raised.value.__cause__ is error


@cases(RETRIED | UNCLEAR | {"of others": ValueError("x"), "kill": KeyboardInterrupt()})
def test_in_the_block_all_other_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, retrying_by_cause():
        raise error
    assert raised.value is error


def test_every_error_is_judged() -> None:
    found = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    judged = {type(error).__name__ for error in (*RETRIED.values(), *NOT_RETRIED.values(), *UNCLEAR.values())}
    assert found - judged == {"RayJobsError", "RayAPIError", "RayJobError", "RayJobNotFoundError"}
