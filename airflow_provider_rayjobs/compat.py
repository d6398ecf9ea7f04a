"""All that differs between Airflow's versions and that ``common.compat`` does not cover."""

from __future__ import annotations

import contextlib
import hashlib
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf, redact
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_1_PLUS,
    get_base_airflow_version_tuple,
)

from airflow_provider_rayjobs.connection import ClusterConnection, read_connection, read_json
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.identity import SECRET_ENV_VARS_KEY, TaskIdentity
from airflow_provider_rayjobs.job_secrets import MOST_TEXTS, JobSecrets
from airflow_provider_rayjobs.safe_text import safe_value
from airflow_provider_rayjobs.threads import in_airflows_thread, in_own_thread

# ``common.compat`` has this from 1.22 on, which no constraints of Airflow up to 3.3.2 let in.
if TYPE_CHECKING or AIRFLOW_V_3_1_PLUS:
    from airflow.sdk.log import mask_secret
elif AIRFLOW_V_3_0_PLUS:
    from airflow.sdk.execution_time.secrets_masker import mask_secret
else:
    from airflow.utils.log.secrets_masker import mask_secret

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseHook, Context

    from airflow_provider_rayjobs.connection import AirflowConnection
    from airflow_provider_rayjobs.protocol import JobDetails

#: What the signal handler of Airflow 2 raises after ``on_kill``; an operator within another task gets this only.
TERMINATED: tuple[type[BaseException], ...] = ()
if not AIRFLOW_V_3_0_PLUS:
    from airflow.exceptions import AirflowTaskTerminated

    TERMINATED = (AirflowTaskTerminated,)

ONLY_3_0 = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS

#: Airflow 3.0's decorated operators hand on a method that its operators do not have, to nobody who calls it.
DECORATORS_MISS_XCOM_PUSH = ONLY_3_0

_PLACEHOLDER = "not a secret"

#: Airflow 3.0 masks no shorter secrets, and complains of each, be it among a command's results.
SHORTEST_MASKED = 5 if ONLY_3_0 else 1

#: Airflow before 3.1.1 begins a retry of a task that failed after its deferral where that ended, with its old event.
RESUMES_IN_RETRIES = (3, 0, 0) <= get_base_airflow_version_tuple() < (3, 1, 1)

#: Airflow 3 hands XComs on in messages (msgspec's) that have no larger integers.
INTEGERS_HAVE_64_BITS = AIRFLOW_V_3_0_PLUS

#: XCom key under which a task keeps, on such an Airflow, the number of the try that was deferred.
DEFERRED_TRY_XCOM = "deferred_try"

#: XCom key under which a task keeps the submission id of the job that it follows.
SUBMISSION_ID_XCOM = "submission_id"


def is_mapped(operator: Any) -> bool:
    """Whether an operator is made when its mapped task runs, with arguments that other tasks may have given."""
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def task_identity(context: Context, deployment: str, number: int = 1) -> TaskIdentity:
    """
    Read from a task's context who it is.

    :param deployment: the connection's ``deployment``, or an empty text to derive one.
    :param number: which of the submissions of this try it is, from 1.
    """
    ti: Any = context["ti"]
    started = getattr(context["dag_run"], "start_date", None)
    return TaskIdentity(
        deployment=deployment or derived_deployment(),
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number,
        max_tries=ti.max_tries,
        run_started=started.astimezone(UTC).isoformat() if started else "",
        number=number,
    )


#: How many submissions the tries that run in this process have made, by the ``id()`` of their task instance and number.
_submissions: dict[tuple[int, int], int] = {}


def next_submission(context: Context) -> int:
    """
    Count the submissions of a try, from 1: a task may execute several operators.

    Each process that runs the try counts anew, so the same submission has the same number in each.
    """
    ti: Any = context["ti"]
    key = (id(ti), ti.try_number)
    if key not in _submissions:
        _submissions[key] = 0
        weakref.finalize(ti, _submissions.pop, key)
    _submissions[key] += 1
    return _submissions[key]


def own_xcom(context: Context, key: str) -> Any:
    """Return what a task has kept under a key, None if it has nothing there."""
    ti: Any = context["ti"]
    return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)


def own_submission_id(context: Context) -> str:
    """Return the submission id that a task has kept, an empty text if there is none."""
    known = own_xcom(context, SUBMISSION_ID_XCOM)
    return known if isinstance(known, str) else ""


def note_deferral(context: Context) -> None:
    """Keep which try it is that may be deferred, where Airflow mixes them up."""
    if RESUMES_IN_RETRIES:
        push_xcom(context, DEFERRED_TRY_XCOM, context["ti"].try_number)


def resumes_earlier_try(context: Context) -> bool:
    """Tell whether what is resumed is a deferral of an earlier try, so that this one is to begin."""
    if not RESUMES_IN_RETRIES:
        return False
    noted = own_xcom(context, DEFERRED_TRY_XCOM)
    return noted is not None and noted != context["ti"].try_number


def derived_deployment() -> str:
    """
    Name this Airflow deployment by what all its workers share and no other deployment has.

    That is the public URL of its web server; else, on Airflow 3, the URL at which workers reach the API server; else
    both are on one machine, whose Fernet key, made at installation, tells it from others.
    """
    section = "api" if AIRFLOW_V_3_0_PLUS else "webserver"
    for option in ((section, "base_url"), ("core", "execution_api_server_url")):
        url = conf.get(*option, fallback="") or ""
        host = urlsplit(url).hostname
        if host and host not in ("localhost", "0.0.0.0", "::1") and not host.startswith("127."):  # noqa: S104
            return url.rstrip("/")
    key = conf.get("core", "fernet_key", fallback="") or ""
    return "local-" + hashlib.blake2b(key.encode(), digest_size=5).hexdigest()


def load_cluster(conn_id: str, connection: AirflowConnection, *, create: bool = True) -> ClusterConnection:
    """
    Read a connection, with the modules that this deployment lets connections name.

    :param create: whether a cluster may be created, where the connection says so.
    :raises RayConnectionConfigError: the connection is of another type, or holds a wrong value.
    """
    _mask_extra(connection)  # before anything can fail, or others see it
    return read_connection(
        conn_id,
        connection,
        allowed_modules=_listed("allowed_modules"),
        credential_folders=_listed("credential_folders"),
        create=create,
    )


def _listed(option: str) -> list[str]:
    """Return what an option of this provider lists, with commas between."""
    names = conf.get("ray_jobs", option, fallback="") or ""
    return [name.strip() for name in names.split(",") if name.strip()]


def _mask_extra(connection: AirflowConnection) -> None:
    """Have Airflow mask what in a connection's extra it deems sensitive, but for the places where tokens come from."""
    with contextlib.suppress(ValueError):
        extra = read_json(connection.extra or "{}")  # Airflow masks no numbers
        if isinstance(extra, dict):
            _mask_sensitive({key: value for key, value in extra.items() if key not in ("token_file", "token_callable")})


def register_cluster(cluster: ClusterConnection) -> None:
    """Have Airflow mask the connection's secrets wherever it shows text, those that come later, too."""
    for secret in cluster.masked:
        _mask(secret)
    _mask_sensitive(cluster.metadata)
    _mask_sensitive(cluster.headers)
    if cluster.token is not None:
        cluster.token.register = _mask


def register_env_vars(env_vars: object, listed: Iterable[str] = ()) -> None:
    """
    Have Airflow mask environment variables of a job wherever it shows text.

    :param env_vars: the variables; only those are masked whose names Airflow deems sensitive.
    :param listed: names of others that are secret.
    """
    if not isinstance(env_vars, Mapping):
        return
    texts: dict[Any, Any] = {
        name: value for name, value in env_vars.items() if isinstance(value, str) and len(value) >= SHORTEST_MASKED
    }
    secret: list[Any] = [texts[name] for name in listed if name in texts]
    _mask_sensitive(texts)
    if secret:
        _mask(secret)


def _mask_sensitive(values: Mapping[str, Any]) -> None:
    """
    Have Airflow mask what stands under names that it deems sensitive, at any level.

    Its masker would pick these by itself, but from 3.1 on it also warns of short values under any name.
    """
    sensitive = set(sensitive_names(values))
    for name, value in values.items():
        if isinstance(value, Mapping):
            _mask_sensitive(value)
        elif name in sensitive:
            _mask(value)


def _mask(secret: Any) -> None:
    """Have Airflow mask a secret; a triggerer that ends is asked no more."""
    if not triggerer_ends():
        mask_secret(secret)


def public(text: str) -> str:
    """
    Return what a job says without secrets.

    Airflow masks its log files by itself, but not all else that it makes of a log: the LocalExecutor of 3.x copies it
    to the scheduler's output unmasked.
    """
    return str(redact(text))


def public_for(job: JobDetails | None) -> Callable[[str], str]:
    """
    Return what takes secrets out of the text of a job: the job's own, and those that this process knows of.

    :param job: the job; None when nothing is known of it.
    """
    if job is None:
        return public
    secrets = JobSecrets(_secret_values(job), job.runtime_env)
    return lambda text: public(secrets.public(text))


def _secret_values(job: JobDetails) -> list[str]:
    """Return the values of a job's environment variables that are secret, by their names or by its author's word."""
    env_vars = job.runtime_env.get("env_vars")
    if not isinstance(env_vars, Mapping):
        return []
    texts = {str(name): value for name, value in env_vars.items() if isinstance(value, str)}
    if len(texts) > MOST_TEXTS:
        return list(texts.values())
    secret = {*(job.metadata.get(SECRET_ENV_VARS_KEY) or "").split(","), *sensitive_names(texts)}
    return [value for name, value in texts.items() if name in secret]


def sensitive_names(names: Iterable[Any]) -> list[str]:
    """Return those names of variables that Airflow deems sensitive (``[core] sensitive_var_conn_names``)."""
    shown: Any = redact(dict.fromkeys(names, _PLACEHOLDER))
    return [name for name, value in shown.items() if value != _PLACEHOLDER]


def push_xcom(context: Context, key: str, value: Any) -> None:
    """Keep something of a task as XCom, in a form that every database takes."""
    context["ti"].xcom_push(key=key, value=safe_value(value))


def stored_connection(conn_id: str) -> Any:
    """
    Read a connection in a process that belongs to no task, from wherever this deployment keeps connections.

    There, the ``get_connection`` of Airflow 3's hooks does not look into the database.

    :raises AirflowNotFoundException: there is none of this id.
    :raises RayJobsError: nor could each place be searched.
    """
    from airflow.configuration import ensure_secrets_loaded

    problem: Exception | None = None
    for backend in ensure_secrets_loaded():
        try:
            connection = backend.get_connection(conn_id)
        except Exception as e:  # noqa: BLE001 - of whatever database or service it is; as in a task, the next one may know
            problem = problem or e
            continue
        if connection is not None:
            return connection
    if problem is not None:
        what = f"{type(problem).__name__}: {str(problem).partition(chr(10))[0]}"
        raise RayJobsError(f"The conn_id `{conn_id}` can't be looked up: {what}") from problem
    raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")


async def read_cluster(hook: BaseHook, conn_id: str) -> ClusterConnection:
    """
    Read a connection on an event loop, without blocking it.

    :raises RayConnectionConfigError: the connection is of another type, or holds a wrong value.
    """
    # Not by `aget_connection`: it is new in 3.1, blocks on the supervisor before 3.3.2, and does not look into the
    # database under `airflow dags test`.
    connection = await in_airflows_thread(hook.get_connection, conn_id)

    # Reading may ask others for the address: it stays out of Airflow's one thread, for which all triggers wait.
    cluster = await in_own_thread(load_cluster, conn_id, connection)
    await in_airflows_thread(register_cluster, cluster)
    return cluster


def triggerer_ends() -> bool:
    """
    Tell whether this triggerer is shutting down and reads no answers any more.

    From Airflow 3.2 on it stops reading them before it cancels its triggers: who still asks waits until it is killed.
    """
    if not AIRFLOW_V_3_0_PLUS:
        return False
    from airflow.sdk.execution_time import task_runner

    reader = getattr(getattr(task_runner, "SUPERVISOR_COMMS", None), "_reader_task", None)
    return reader is not None and reader.done()
