"""The commands of ``cli``: functions that take a hook, the arguments and stdout, and return the exit code."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.cli.follow import follow, print_log, watch
from airflow_provider_rayjobs.cli.output import (
    ERROR,
    INTERRUPTED,
    NOT_FOUND,
    command,
    command_line,
    log,
    print_lines,
    upload_bar,
    width_of,
)
from airflow_provider_rayjobs.cli.records import (
    column_lines,
    details_of,
    list_lines,
    print_for_scripts,
    property_lines,
    record_of,
)
from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.client.checks import check_metadata
from airflow_provider_rayjobs.client.cluster_status import cluster_resources
from airflow_provider_rayjobs.client.ids import check_submission_id, new_submission_id
from airflow_provider_rayjobs.compat.masking import public_for
from airflow_provider_rayjobs.diagnosis.pending import why_pending
from airflow_provider_rayjobs.jobs import JobStatus
from airflow_provider_rayjobs.tasks.stopping import DELETE_DELAY, STOP_TIMEOUT
from airflow_provider_rayjobs.text.safe_text import for_terminal

if TYPE_CHECKING:
    from argparse import Namespace
    from typing import TextIO

    from airflow_provider_rayjobs.hooks import RayJobHook


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
    jobs = jobs[: args.limit]
    if args.output in ("json", "yaml"):
        print_for_scripts([record_of(job) for job in jobs], args.output, out)
    elif not jobs:
        log.info("No jobs found")
    else:
        print_lines(list_lines(jobs, width_of(out)) if args.output == "table" else column_lines(jobs), out)


@command
def show_job(hook: RayJobHook, args: Namespace, out: TextIO) -> int:
    """Show a job's details; with ``--watch``, each change of its status until it ends."""
    for_scripts = args.output in ("json", "yaml")
    if args.watch and for_scripts:
        raise ValueError(f"--watch prints lines of text; it can't be used with --output {args.output}")
    job = hook.get_job_info(check_submission_id(args.submission_id))
    if args.watch:
        return watch(hook, args, out, job)
    details = details_of(job)
    if job.status is JobStatus.PENDING:
        reason = why_pending(job, hook.get_conn().run(cluster_resources()), public_for(job))
        log.info("PENDING: %s", for_terminal(reason))
    if for_scripts:
        print_for_scripts([details], args.output, out)
    else:
        print_lines(property_lines(details), out)
    return 0


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
    """Stop a job, and wait until it has ended; with ``--no-wait``, only ask Ray to stop it."""
    submission_id = check_submission_id(args.submission_id)
    if args.no_wait:
        return _ask_to_stop(hook, args, out, submission_id)
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


def _ask_to_stop(hook: RayJobHook, args: Namespace, out: TextIO, submission_id: str) -> int:
    if hook.stop_job(submission_id):
        log.info(
            "Ray job %s was asked to stop; to see whether it has: %s",
            submission_id,
            command_line("status", args, submission_id),
        )
        return 0
    job = hook.get_job_info(submission_id)
    if not job.status.is_terminal:  # Ray's answer is the same while the job's actor does not exist yet
        log.error("Ray job %s is %s and can't be stopped yet; try again", submission_id, job.status)
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
