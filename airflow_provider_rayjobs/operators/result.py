"""
The part of the operator that reads what a job leaves for its task: its result, and the traceback of its function.

The job needs packages for that, which are uploaded before the submission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.client.ids import is_not_given
from airflow_provider_rayjobs.cluster.fields import DEFAULT_UPLOAD_LIMIT
from airflow_provider_rayjobs.exceptions import RayJobError, RayJobResultError, RayJobsError, RayPackageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_rayjobs.following.events import JobEvent
    from airflow_provider_rayjobs.functions.package import Task
    from airflow_provider_rayjobs.functions.result import Record
    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.jobs import JobDetails
    from airflow_provider_rayjobs.tasks.guard import JobGuard
    from airflow_provider_rayjobs.tasks.identity import TaskIdentity

    Operator = BaseOperator
else:
    Operator = object


class ReadsResult(Operator):
    """Mixin: the task returns what its job reports, if ``read_result`` is set."""

    read_result: bool
    result_path: str | None
    runtime_env: Any
    #: What needs the packages, for messages.
    _result_of = "read_result"
    _packages: Task | None = None  # between the check and the upload
    #: For the job's metadata; set with the packages.
    _package_metadata: Mapping[str, str] = {}
    _cluster_is_given: bool
    _guard: JobGuard | None

    if TYPE_CHECKING:

        @property
        def hook(self) -> RayJobHook: ...  # noqa: D102
        def _new_guard(self, context: Context) -> JobGuard: ...
        def _waiting_for_cluster(self) -> AbstractContextManager[None]: ...

    @property
    def _result_folder(self) -> str | None:
        """The URL in ``result_path``; None if it is not given, or was rendered to nothing."""
        return None if is_not_given(self.result_path) else self.result_path

    def _pack(self, context: Context) -> None:
        """
        Make the packages that go with the job; done before any request, because it may fail.

        :raises AirflowFailException: an argument is wrong.
        """
        if not self.read_result:
            return
        from airflow_provider_rayjobs.compat import result_folder
        from airflow_provider_rayjobs.functions import package as packages
        from airflow_provider_rayjobs.functions import result  # noqa: F401 - now: an upgrade may replace it meanwhile

        try:
            if containers := {"container", "image_uri"}.intersection(self.runtime_env or {}):
                raise ValueError(
                    f"runtime_env[{containers.pop()!r}] can't be used with {self._result_of}, because Ray allows no "
                    "py_modules in containers; remove it"
                )
            if self._result_folder is not None:
                result_folder.check_installed(self._result_folder)
            described = self._described(context)
            self._packages = packages.build_packages(described, self._upload_limit)
            self._package_metadata = packages.metadata_of(described)
        except (TypeError, ValueError) as e:
            raise AirflowFailException(f"Nothing was submitted: {e}") from None

    def _described(self, context: Context) -> Task:
        """Return the files that tell the packages' code what to do."""
        from airflow_provider_rayjobs.functions import package as packages

        return packages.describe_command(result_path=self._result_folder)

    @property
    def _upload_limit(self) -> int:
        """Maximum size of a package, in bytes. A cluster that KubeRay makes has the default."""
        return DEFAULT_UPLOAD_LIMIT if self._cluster_is_given else self.hook.cluster.upload_limit

    def _with_package(
        self, context: Context, runtime_env: dict[str, Any] | None, identity: TaskIdentity
    ) -> dict[str, Any] | None:
        """
        Upload the packages, and return the ``runtime_env`` with them.

        This comes last before the submission: Ray keeps a package that no job uses for ten minutes only.

        :param runtime_env: after the upload of local files.
        :raises RayPackageError: a package can't be stored.
        """
        from airflow_provider_rayjobs.functions.package import upload_packages
        from airflow_provider_rayjobs.hooks import package_store
        from airflow_provider_rayjobs.packaging.upload import ReadyRuntimeEnv

        if not self.read_result:
            return runtime_env
        if self._packages is None:  # this try has submitted before, or followed the job of an earlier one
            self._pack(context)
        assert self._packages is not None  # noqa: S101 - for mypy
        try:
            uris = upload_packages(self._packages, package_store(self.hook.get_conn()), identity.attempt_key)
        except RayPackageError as e:
            raise type(e)(f"Nothing was submitted: {e}") from None
        self._packages = None  # they may be large, and the wait long
        ready = runtime_env or {}
        return ReadyRuntimeEnv({**ready, "py_modules": [*(ready.get("py_modules") or []), *uris]})

    def _reported(self, context: Context, event: JobEvent) -> Any:
        """
        Return what a job that SUCCEEDED has reported; None, with a warning, if it has reported nothing.

        :raises RayJobResultError: the result is lost or damaged.
        :raises NewJobNeededError: the same, and the job was taken over from an earlier try.
        """
        from airflow_provider_rayjobs.functions.result import NoResultError
        from airflow_provider_rayjobs.tasks.earlier_tries import NewJobNeededError
        from airflow_provider_rayjobs.tasks.stopping import find_job

        with self._waiting_for_cluster():
            job = find_job(self.hook, event.submission_id)
        try:
            if job is None:
                raise RayJobResultError(f"{event.address}: Ray job {event.submission_id} is gone, with its result")
            try:
                record = self._read(context, job, event)
            except NoResultError as e:
                self._without_result(e)
                return None
            return self._value(record, event)
        except RayJobResultError as e:
            # The try that submitted this job fails; a later one, which took it over, submits a new job.
            if event.reattached_at is None:
                raise
            self.log.warning("%s; submitting a new job", e)
            raise NewJobNeededError from e

    def _without_result(self, error: RayJobResultError) -> None:
        """Handle a job that SUCCEEDED without a result."""
        self.log.warning("The job has reported no result, so the task returns None")
        self.log.debug("%s", error)

    def _left_by_failed(self, context: Context, event: JobEvent) -> str:
        """
        Read what a FAILED job left: its function's traceback is returned, a value that it reported becomes an XCom.

        Errors are logged: they must not replace the job's own.
        """
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.functions.result import NoResultError, traceback_of
        from airflow_provider_rayjobs.tasks import context as task_context
        from airflow_provider_rayjobs.text.safe_text import safe_text

        if not self.read_result:
            return ""
        try:
            with self._waiting_for_cluster():
                job = self.hook.get_job_info(event.submission_id)
            if not job.driver_node_id:  # it never started
                return ""
            record = self._read(context, job, event)
            if record.outcome == "error":
                return safe_text(masking.public_for(job, self.hook.cluster)(traceback_of(record)))
            if self.do_xcom_push:
                task_context.push_xcom(context, task_context.RESULT_XCOM, self._value(record, event))
                self.log.info("The job had reported a result before it failed; it is the task's XCom")
        except NoResultError as e:
            self.log.debug("%s", e)
        except Exception as e:  # noqa: BLE001 - of a storage or of an XCom backend, too
            self.log.warning("What the job had reported before it failed can't be passed on: %s", e)
        return ""

    def _value(self, record: Record, event: JobEvent) -> Any:
        from airflow_provider_rayjobs.compat import versions
        from airflow_provider_rayjobs.text.safe_text import is_safe, safe_value

        value = self._value_in(record, event)
        if versions.INTEGERS_HAVE_64_BITS and not _has_short_integers(value):
            raise RayJobResultError(
                f"{event.address}: Ray job {event.submission_id}: its result holds an integer of more than 64 bits, "
                "which Airflow can't store in an XCom; make it a string"
            )
        if not is_safe(value):
            self.log.warning(
                "The job's result holds NUL characters or lone surrogates, which Airflow's databases can't store; they "
                "were replaced by their escapes, such as \\x00"
            )
        return safe_value(value)

    def _value_in(self, record: Record, event: JobEvent) -> Any:
        from airflow_provider_rayjobs.functions.result import check_stored_size, stored_at, value_of

        name = f"{event.address}: Ray job {event.submission_id}"
        if record.outcome == "error":
            raise RayJobResultError(f"{name} ended SUCCEEDED, but its function failed")
        if record.outcome == "value":
            return value_of(record, name)
        if self._result_folder is None:
            raise RayJobResultError(
                f"{name}: its result was stored in the task's result_path, which is no longer set; set it again"
            )
        from airflow_provider_rayjobs.compat import result_folder
        from airflow_provider_rayjobs.compat.package_folder import reason

        check_stored_size(record, name)
        url = stored_at(self._result_folder, event.submission_id, record)
        self.log.info("Reading the result, %s bytes, from %s", f"{record.size:,}", url)
        try:
            data = result_folder.read(url, record.size + 1)
        except FileNotFoundError as e:
            raise RayJobResultError(f"{name}: its result is no longer at {url}") from e
        except IsADirectoryError as e:
            raise RayJobResultError(f"{name}: its result at {url} is not a regular file") from e
        except RayJobsError:  # that of a kill meanwhile
            raise
        except Exception as e:  # noqa: BLE001 - of any library for storage
            # Not a RayJobResultError: a retry reads the value again, and needs no new job. Not "from e": a library's
            # own message may have a URL with a password.
            raise RayJobError(
                f"{name}: its result at {url} can't be read ({reason(e)}); "
                f"{result_folder.remedy(url, e)}, then clear the task",
                submission_id=event.submission_id,
            ) from None
        return value_of(record, name, data)

    def _read(self, context: Context, job: JobDetails, event: JobEvent) -> Record:
        """Read the result file that the job wrote."""
        from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.functions.result import read_record

        async def read() -> Record:
            transport = AiohttpTransport(self.hook.cluster, counts=self.hook.get_conn().counts)
            try:
                return await read_record(transport, event.submission_id, job, self.log)
            finally:
                await transport.close()

        record = (self._guard or self._new_guard(context)).run(read())
        if record.progress is not None:
            public = masking.public_for(job, self.hook.cluster)
            self._push_progress(context, {**record.progress, "message": public(record.progress["message"])})
        return record

    def _push_progress(self, context: Context, report: Mapping[str, Any]) -> None:
        from airflow_provider_rayjobs import progress
        from airflow_provider_rayjobs.tasks import context as task_context

        task_context.push_xcom(context, task_context.PROGRESS_XCOM, progress.stored(dict(report)))


def _has_short_integers(value: Any) -> bool:
    """Return whether a value's integers have at most 64 bits."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_has_short_integers, value))
    return not isinstance(value, int) or -(2**63) <= value < 2**64
