"""The commands of ``cli``: functions that take a hook, the arguments and stdout, and return the exit code."""

from __future__ import annotations

import textwrap
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import redact

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.cli.follow import follow, print_log
from airflow_provider_rayjobs.cli.output import (
    ERROR,
    INTERRUPTED,
    NOT_FOUND,
    command,
    command_line,
    log,
    print_records,
    upload_bar,
)
from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.client.checks import check_metadata
from airflow_provider_rayjobs.client.cluster_status import cluster_resources
from airflow_provider_rayjobs.client.ids import check_submission_id, new_submission_id
from airflow_provider_rayjobs.client.runtime_env import public_runtime_env
from airflow_provider_rayjobs.compat.masking import public_for
from airflow_provider_rayjobs.diagnosis.pending import why_pending
from airflow_provider_rayjobs.jobs import JobStatus
from airflow_provider_rayjobs.tasks.stopping import DELETE_DELAY, STOP_TIMEOUT
from airflow_provider_rayjobs.text.safe_text import for_terminal, without_logins

if TYPE_CHECKING:
    from argparse import Namespace
    from typing import TextIO

    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.jobs import JobDetails

#: Maximum number of characters of an entrypoint in a table.
ENTRYPOINT_WIDTH = 60


@command
def submit_job(hook: RayJobHook, args: Namespace, out: TextIO) -> int:
    """Submit a job; with ``--follow``, follow it to its end."""
    submission_id = args.submission_id or new_submission_id()
    if args.metadata_json is not None:
        check_metadata(args.metadata_json)
    try:
        with upload_bar():
            hook.submit_job(
                entrypoint=args.command if len(args.command) > 1 else args.command[0],
                runtime_env=_runtime_env(args),
                submission_id=submission_id,
                metadata=args.metadata_json,
                entrypoint_num_cpus=args.entrypoint_num_cpus,
                entrypoint_num_gpus=args.entrypoint_num_gpus,
                entrypoint_memory=args.entrypoint_memory,
                entrypoint_resources=args.entrypoint_resources,
                entrypoint_label_selector=args.entrypoint_label_selector,
            )
    except KeyboardInterrupt:
        log.warning(
            "Interrupted. Ray job %s may or may not have been accepted; to check: %s",
            submission_id,
            command_line("status", args, submission_id),
        )
        return INTERRUPTED
    if not args.follow:
        out.write(f"{submission_id}\n")
        return 0
    log.info("Submitted Ray job %s: %s", submission_id, hook.cluster.job_page(submission_id))
    return follow(hook, args, out, submission_id, time.time())


def _runtime_env(args: Namespace) -> dict[str, Any] | None:
    if args.runtime_env is not None and args.runtime_env_json is not None:
        raise ValueError("--runtime-env and --runtime-env-json can't be used together; give one of them")
    runtime_env = args.runtime_env_json if args.runtime_env is None else _read_runtime_env(args.runtime_env)
    if args.working_dir is not None:
        runtime_env = {**(runtime_env or {}), "working_dir": args.working_dir}
    return runtime_env


def _read_runtime_env(path: str) -> dict[str, Any]:
    from airflow.utils import yaml

    try:
        read = yaml.safe_load(Path(path).read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"--runtime-env: the file {path!r} can't be read: {getattr(e, 'strerror', None) or e}") from e
    except yaml.YAMLError as e:  # type: ignore[attr-defined]  # Airflow's module has it through __getattr__
        mark = getattr(e, "problem_mark", None)  # the whole error would show the line, which may have a secret
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"--runtime-env: {path!r}{line} is not valid YAML: {getattr(e, 'problem', '')}") from None
    if not isinstance(read, dict):
        raise ValueError(f"--runtime-env: {path!r} must contain a mapping, such as 'pip: [torch]'")
    return read


@command
def list_jobs(hook: RayJobHook, args: Namespace, out: TextIO) -> None:
    """List the jobs that were submitted, the newest first."""
    wanted = {keys.DAG_ID: args.dag_id, keys.RUN_ID: args.run_id, keys.TASK_ID: args.task_id}
    jobs = [
        job
        for job in hook.list_jobs()
        if job.submission_id  # Ray also lists drivers, which were not submitted as jobs
        and (not args.status or job.status in args.status)
        and all(value in (None, job.metadata.get(key)) for key, value in wanted.items())
    ]
    jobs.sort(key=lambda job: job.start_time or 0, reverse=True)
    print_records([_line_of(job, args.output) for job in jobs[: args.limit]], args.output, out)


def _line_of(job: JobDetails, output: str) -> dict[str, Any]:
    entrypoint = public_for(job)(job.entrypoint)
    return {
        "submission_id": job.submission_id,
        "status": str(job.status),
        **_times(job),
        "dag_id": job.metadata.get(keys.DAG_ID),
        "run_id": job.metadata.get(keys.RUN_ID),
        "task_id": job.metadata.get(keys.TASK_ID),
        "entrypoint": entrypoint if output in ("json", "yaml") else textwrap.shorten(entrypoint, ENTRYPOINT_WIDTH),
    }


def _times(job: JobDetails) -> dict[str, Any]:
    """Return a job's start time, and its duration so far in seconds."""
    end = job.end_time or time.time() * 1000
    return {
        "start_time": _as_text(job.start_time),
        "duration": None if job.start_time is None else round((end - job.start_time) / 1000, 1),
    }


def _as_text(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


@command
def show_job(hook: RayJobHook, args: Namespace, out: TextIO) -> None:
    """Show a job's details."""
    job = hook.get_job_info(check_submission_id(args.submission_id))
    details = _details_of(job)
    if job.status is JobStatus.PENDING:
        reason = why_pending(job, hook.get_conn().run(cluster_resources()), public_for(job))
        log.info("PENDING: %s", for_terminal(reason))
    if args.output in ("table", "plain"):  # like `airflow dags details`
        records = [{"property_name": name, "property_value": value} for name, value in details.items()]
    else:
        records = [details]
    print_records(records, args.output, out)


def _details_of(job: JobDetails) -> dict[str, Any]:
    """Return a job's details without secrets."""
    public = public_for(job)
    shown = asdict(job) | _times(job) | {"end_time": _as_text(job.end_time)}
    for name in ("entrypoint", "message"):
        shown[name] = shown[name] and without_logins(public(shown[name]))
    shown["runtime_env"] = public_runtime_env(job.runtime_env)
    first = ("submission_id", "status", "message")
    cleaned: dict[str, Any] = redact({name: shown.pop(name) for name in first} | shown)  # type: ignore[assignment]  # a dict stays one
    return cleaned


@command
def show_log(hook: RayJobHook, args: Namespace, out: TextIO) -> int:
    """Print a job's log; with ``--follow``, until the job ends."""
    job = hook.get_job_info(check_submission_id(args.submission_id))
    if args.follow:
        return follow(hook, args, out, args.submission_id, (job.start_time or 0) / 1000 or time.time())
    print_log(hook.cluster, job, args.submission_id, out)
    return 0


@command
def stop_job(hook: RayJobHook, args: Namespace, out: TextIO) -> int:
    """Stop a job, and wait until it has ended."""
    submission_id = check_submission_id(args.submission_id)
    job = hook.get_conn().run(verbs.stop_and_wait(submission_id, patience=STOP_TIMEOUT))
    if job is None:
        log.error("Ray job %s not found at %s", submission_id, hook.get_address())
        return NOT_FOUND
    if not job.status.is_terminal:
        # Ray stops a job that waits for resources only when it gets them.
        log.error(
            "Ray job %s was asked to stop, but is still %s after %.0f s; to check: %s",
            submission_id,
            job.status,
            STOP_TIMEOUT,
            command_line("status", args, submission_id),
        )
        return ERROR
    out.write(f"{job.status}\n")
    return 0


@command
def delete_job(hook: RayJobHook, args: Namespace, out: TextIO) -> int:
    """Delete the record of a job that has ended."""
    submission_id = check_submission_id(args.submission_id)
    job = hook.get_job_info(submission_id)
    if not job.status.is_terminal:
        log.error(
            "Ray job %s is %s, and only a job that has ended can be deleted; to stop it: %s",
            submission_id,
            job.status,
            command_line("stop", args, submission_id),
        )
        return ERROR
    since_end = time.time() - (job.end_time or 0) / 1000
    time.sleep(min(max(DELETE_DELAY - since_end, 0), DELETE_DELAY))
    hook.delete_job(submission_id)
    log.info("Deleted Ray job %s", submission_id)
    return 0
