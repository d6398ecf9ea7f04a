"""
Reads Ray's State API: a job's tasks and actors, and the cluster's nodes; no I/O.

The routes belong to the dashboard, not to the Jobs API (Ray 2.60, ``dashboard/modules/state/state_head.py``). Ray lists
at most 10,000 tasks of a job, and remembers at most 100,000 of all jobs. Each attempt of a task is an entry of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow_provider_rayjobs.client.answers import no_jobs_api, read_object
from airflow_provider_rayjobs.client.exchange import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_rayjobs.client.exchange import Flow

TASKS = "/api/v0/tasks"
ACTORS = "/api/v0/actors"
NODES = "/api/v0/nodes"
TASK_COUNTS = "/api/v0/tasks/summarize"

#: A field, ``=`` or ``!=``, and a value.
Filter = tuple[str, str, str]

#: Largest number that counts as one: Airflow can't store larger integers everywhere.
LARGEST_NUMBER = 10**9

#: Most tasks that Ray lists or counts in one answer (``RAY_MAX_LIMIT_FROM_API_SERVER``).
MOST_LISTED = 10_000


@dataclass(frozen=True)
class Listed:
    """
    Some entries of a list.

    :param rows: the entries.
    :param number: how many there are in total.
    """

    rows: tuple[Mapping[str, Any], ...]
    number: int


def list_state(route: str, filters: Sequence[Filter], *, limit: int) -> Flow[Listed]:
    """
    List what matches all filters, with all details.

    :param route: :data:`TASKS`, :data:`ACTORS` or :data:`NODES`.
    :param filters: such as ``("job_id", "=", "02000000")``.
    :param limit: maximum number of entries.
    :raises RayJobsError: there is no answer, or not one of this form.
    """
    query = [("limit", str(limit)), ("detail", "1")]
    response = yield Request("GET", f"{route}?{_filtered(filters)}&{urlencode(query)}", repeatable=False)
    try:
        result = read_object(response)["data"]["result"]
        rows, number = result["result"], _count(result["num_filtered"])
        if not all(isinstance(row, dict) for row in rows):
            raise TypeError("a row that is not an object")
    except (KeyError, TypeError, ValueError, OverflowError):
        raise no_jobs_api(response, f"a malformed list from {route}") from None
    return Listed(tuple(rows), number)


def count_tasks(ray_job_id: str) -> Flow[dict[str, dict[str, int]]]:
    """
    Count a job's tasks by function and state (``GET /api/v0/tasks/summarize``).

    A head needs about 0.17 ms for each task (Ray 2.60).

    :param ray_job_id: Ray's id of the job (``job_id``), not its submission id.
    :return: for each function, the number of tasks in each of Ray's states.
    :raises RayJobsError: there is no answer, or not one of this form.
    """
    response = yield Request("GET", f"{TASK_COUNTS}?{_filtered([('job_id', '=', ray_job_id)])}", repeatable=False)
    try:
        (summary,) = read_object(response)["data"]["result"]["result"]["node_id_to_summary"].values()
        return {
            str(name): {str(state): _count(number) for state, number in of_function["state_counts"].items()}
            for name, of_function in summary["summary"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise no_jobs_api(response, "a malformed summary of tasks") from None


def _filtered(filters: Sequence[Filter]) -> str:
    """Return filters as a query; the three parameters of each belong together by their order."""
    query: list[tuple[str, str]] = []
    for name, predicate, value in filters:
        query += [("filter_keys", name), ("filter_predicates", predicate), ("filter_values", value)]
    return urlencode(query)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_NUMBER:
        raise ValueError("not a number of tasks")
    return value
