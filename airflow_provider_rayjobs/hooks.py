"""Hooks over the Ray Jobs REST API: :class:`RayJobHook` for workers, :class:`RayJobAsyncHook` for event loops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_rayjobs.client import listing, log_files, verbs
from airflow_provider_rayjobs.client.cluster_status import describe_resources
from airflow_provider_rayjobs.client.submission import make_submission, with_runtime_env
from airflow_provider_rayjobs.client.threads import in_own_thread
from airflow_provider_rayjobs.cluster.fields import CONN_TYPE, field_behaviour, form_widgets
from airflow_provider_rayjobs.compat.connections import load_cluster, read_cluster
from airflow_provider_rayjobs.compat.masking import register_cluster, register_env_vars
from airflow_provider_rayjobs.exceptions import RayJobsError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence

    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
    from airflow_provider_rayjobs.client.exchange import Flow
    from airflow_provider_rayjobs.client.requests_transport import RequestsTransport
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.jobs import JobDetails, JobStatus, VersionInfo

T = TypeVar("T")


class RayJobHook(BaseHook):
    """
    Talks to the Jobs API of one Ray cluster, synchronously, with Ray's own verbs and argument names.

    Reads, stop and delete are repeated on lost contact; a submission never blindly (see :meth:`submit_job`). No
    ``ray`` package is needed. Routes are those of ``dashboard/modules/job/job_head.py`` (Ray 2.60).

    :param ray_conn_id: Airflow connection of type ``ray_jobs``; read at the first request.
    """

    conn_name_attr = "ray_conn_id"
    default_conn_name = "ray_default"
    conn_type = CONN_TYPE
    hook_name = "Ray Jobs"

    def __init__(self, ray_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ray_conn_id = ray_conn_id
        self._create_cluster = True  # where the connection says so

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the connection form: which fields it shows, and what they are called."""
        return field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's fields for the keys of the extra."""
        return form_widgets()

    @cached_property
    def cluster(self) -> ClusterConnection:
        """
        The cluster that the connection names.

        :raises RayConnectionConfigError: the connection is of another type, or holds a wrong value.
        """
        cluster = load_cluster(self.ray_conn_id, self.get_connection(self.ray_conn_id), create=self._create_cluster)
        register_cluster(cluster)
        return cluster

    @cached_property
    def _transport(self) -> RequestsTransport:
        from airflow_provider_rayjobs.client.requests_transport import RequestsTransport

        return RequestsTransport(self.cluster)

    def get_conn(self) -> RequestsTransport:
        """Return the transport, which drives the flows of ``protocol``."""
        return self._transport

    def close(self) -> None:
        """Close the HTTP session; the next request opens another."""
        if (transport := self.__dict__.pop("_transport", None)) is not None:
            transport.close()

    def get_address(self) -> str:
        """Return the cluster's address, ``http(s)://host[:port][/prefix]``."""
        return self.cluster.address

    def get_version(self) -> str:
        """
        Return the cluster's Ray version (``GET /api/version``).

        :raises RayClusterUnreachableError: no usable answer.
        :raises RayProtocolError: the address is not that of a Ray dashboard.
        """
        return self.get_version_info().ray_version

    def get_version_info(self) -> VersionInfo:
        """Return the Ray version and the head's session name (``GET /api/version``)."""
        return self._transport.run(verbs.get_version())

    def submit_job(
        self,
        *,
        entrypoint: str | Sequence[str],
        runtime_env: Mapping[str, Any] | None = None,
        submission_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: Mapping[str, float] | None = None,
        entrypoint_label_selector: Mapping[str, str] | None = None,
        submission_key: str | None = None,
    ) -> str:
        """
        Submit a job, exactly once (``POST /api/jobs/``).

        The id is chosen before the request, by the caller or at random. After an answer that leaves a doubt the id
        is looked up: a job of this very submission is taken for accepted, and only when there is none the same id is
        sent again.

        :param entrypoint: command line that the cluster runs in a shell, or a list of words, which is quoted.
        :param runtime_env: Ray's runtime environment; local files in it are uploaded first, as
            :meth:`prepare_runtime_env` does it.
        :param submission_id: id of the job, of letters, digits, ``_``, ``.`` and ``-``.
        :param metadata: strings that are stored with the job; the connection's metadata is laid over them.
        :param entrypoint_num_cpus: CPU cores to reserve for the entrypoint.
        :param entrypoint_num_gpus: GPUs to reserve for the entrypoint.
        :param entrypoint_memory: memory to reserve for the entrypoint, in bytes.
        :param entrypoint_resources: custom resources to reserve for the entrypoint.
        :param entrypoint_label_selector: labels that the entrypoint's node must have.
        :param submission_key: names this submission across processes, so that a second call with the same key
            adopts the first call's job; a random one by default.
        :return: the submission id.
        :raises ValueError: an argument is wrong, before anything is sent.
        :raises TypeError: an argument has a wrong type, before anything is sent.
        :raises RayPackageError: local files can't be packed or are too large, before anything is submitted.
        :raises RayJobExistsError: another job has this submission id.
        :raises RayRequestRefusedError: Ray refused the request.
        :raises RayClusterUnreachableError: the cluster could not be reached, or went away and did not come back
            within the connection's ``unreachable_timeout``.
        """
        register_env_vars(_env_vars(runtime_env))
        submission, is_ours = make_submission(
            self.cluster,
            entrypoint=entrypoint,
            runtime_env=runtime_env,
            submission_id=submission_id,
            metadata=metadata,
            entrypoint_num_cpus=entrypoint_num_cpus,
            entrypoint_num_gpus=entrypoint_num_gpus,
            entrypoint_memory=entrypoint_memory,
            entrypoint_resources=entrypoint_resources,
            entrypoint_label_selector=entrypoint_label_selector,
            submission_key=submission_key,
        )
        submission = with_runtime_env(submission, self.prepare_runtime_env(runtime_env))
        patience = self.cluster.unreachable_timeout
        return self._transport.run(verbs.submit_job(submission, is_ours, patience=patience))

    def prepare_runtime_env(self, runtime_env: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """
        Upload a ``runtime_env``'s local files, and return what is to be submitted instead.

        A local ``working_dir`` and local ``py_modules`` become packages on the cluster (``PUT
        /api/packages/gcs/{name}``), unless it has them already, and the files of ``pip``, ``uv`` and ``conda`` become
        lists and dicts, as with Ray's own client. What is ready comes back as it is.

        :param runtime_env: Ray's runtime environment.
        :raises ValueError: a value is wrong; the message names its key.
        :raises TypeError: a value has a wrong type; the message names its key.
        :raises RayPackageError: local files can't be packed or are too large.
        :raises RayJobsError: the cluster does not take them.
        """
        return None if runtime_env is None else _prepare(self._transport, runtime_env)

    def stop_job(self, submission_id: str) -> bool:
        """
        Ask a job to stop; it ends STOPPED some seconds later (``POST /api/jobs/{id}/stop``).

        :param submission_id: the job.
        :return: True when it was running, False when it had already ended.
        :raises RayJobNotFoundError: no such job.
        """
        return self._transport.run(verbs.stop_job(submission_id))

    def delete_job(self, submission_id: str) -> bool:
        """
        Delete the record of a job that has ended (``DELETE /api/jobs/{id}``).

        :param submission_id: the job.
        :return: True when it was deleted.
        :raises RayJobNotFoundError: no such job.
        :raises RayAPIError: the job has not ended yet.
        """
        return self._transport.run(verbs.delete_job(submission_id))

    def get_job_info(self, submission_id: str) -> JobDetails:
        """
        Return a job's details (``GET /api/jobs/{id}``).

        :param submission_id: the job.
        :raises RayJobNotFoundError: no such job.
        """
        return self._transport.run(verbs.get_job_info(submission_id))

    def get_job_status(self, submission_id: str) -> JobStatus:
        """Return a job's status, as :meth:`get_job_info`."""
        return self.get_job_info(submission_id).status

    def list_jobs(self) -> list[JobDetails]:
        """
        Return all jobs that the cluster ever had (``GET /api/jobs/``).

        It costs the head about 0.3 ms for each job on record, during which other requests wait.
        """
        return self._transport.run(listing.list_jobs())

    def get_job_logs(self, submission_id: str) -> str:
        """
        Return a job's whole log in one text (``GET /api/jobs/{id}/logs``), of at most 256 MiB.

        Where Ray can't, because a byte of the log is not UTF-8, the log's file is read (``GET /api/v0/logs/file``),
        with replacement characters.

        :param submission_id: the job.
        :raises RayJobNotFoundError: no such job.
        :raises RayProtocolError: the log is larger; follow it with :meth:`tail_job_logs`.
        """
        return self._transport.run(log_files.get_job_logs(submission_id))

    def tail_job_logs(self, submission_id: str) -> Generator[str, None, None]:
        """
        Yield pieces of a job's log as the job writes them, from its beginning until the stream ends.

        Follows the WebSocket ``GET /api/jobs/{id}/logs/tail``. Its end says nothing of the job's outcome. Who leaves it
        before that closes it, with ``contextlib.closing`` say.

        :param submission_id: the job.
        :raises RayJobNotFoundError: no such job.
        :raises RayClusterUnreachableError: the stream broke.
        """
        from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

        self.get_job_info(submission_id)
        transport = AiohttpTransport(self.cluster)
        pieces = _tail(transport, submission_id)
        with asyncio.Runner() as runner:
            try:
                while True:
                    yield runner.run(_next(pieces))
            except StopAsyncIteration:
                return
            finally:
                runner.run(pieces.aclose())
                runner.run(transport.close())

    def test_connection(self) -> tuple[bool, str]:
        """Ask the cluster for its version and its resources; the answer is for the connection form."""
        try:
            info = self.get_version_info()
            resources = self._transport.run(describe_resources())
        except (RayJobsError, ValueError) as e:
            return False, str(e)
        found = f"Ray {info.ray_version} at {self.get_address()}"
        if info.session_name:
            found += f", session {info.session_name}"
        return True, f"{found}; {resources}" if resources else found


class RayJobAsyncHook(BaseHook):
    """
    The verbs of :class:`RayJobHook` as coroutines, for event loops; arguments, results and errors are the same.

    :param ray_conn_id: Airflow connection of type ``ray_jobs``; read at the first request, without blocking the loop.
    """

    def __init__(self, ray_conn_id: str = RayJobHook.default_conn_name) -> None:
        super().__init__()
        self.ray_conn_id = ray_conn_id
        self._cluster: ClusterConnection | None = None
        self._transport: AiohttpTransport | None = None

    async def get_conn(self) -> AiohttpTransport:
        """Return the transport, which drives the flows of ``protocol``; it belongs to the running event loop."""
        if self._transport is None:
            from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

            if self._cluster is None:
                self._cluster = await read_cluster(RayJobHook(self.ray_conn_id), self.ray_conn_id)
            self._transport = AiohttpTransport(self._cluster)
        return self._transport

    async def close(self) -> None:
        """Close the HTTP session; the next request opens another."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def _run(self, flow: Flow[T]) -> T:
        return await (await self.get_conn()).run(flow)

    async def get_address(self) -> str:
        """Return the cluster's address."""
        return (await self.get_conn()).cluster.address

    async def get_version(self) -> str:
        """Return the cluster's Ray version."""
        return (await self.get_version_info()).ray_version

    async def get_version_info(self) -> VersionInfo:
        """Return the Ray version and the head's session name."""
        return await self._run(verbs.get_version())

    async def submit_job(self, *, runtime_env: Mapping[str, Any] | None = None, **job: Any) -> str:
        """Submit a job, exactly once; takes what :meth:`RayJobHook.submit_job` takes."""
        cluster = (await self.get_conn()).cluster
        submission, is_ours = make_submission(cluster, runtime_env=runtime_env, **job)
        submission = with_runtime_env(submission, await self.prepare_runtime_env(runtime_env))
        return await self._run(verbs.submit_job(submission, is_ours, patience=cluster.unreachable_timeout))

    async def prepare_runtime_env(self, runtime_env: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Upload a ``runtime_env``'s local files; packing and sending block, so a thread does both."""
        cluster = (await self.get_conn()).cluster
        if runtime_env is None:
            return None

        def prepare() -> dict[str, Any]:
            from airflow_provider_rayjobs.client.requests_transport import RequestsTransport

            with contextlib.closing(RequestsTransport(cluster)) as transport:
                return _prepare(transport, runtime_env)

        return await in_own_thread(prepare)

    async def stop_job(self, submission_id: str) -> bool:
        """Ask a job to stop; True when it was running."""
        return await self._run(verbs.stop_job(submission_id))

    async def delete_job(self, submission_id: str) -> bool:
        """Delete the record of a job that has ended."""
        return await self._run(verbs.delete_job(submission_id))

    async def get_job_info(self, submission_id: str) -> JobDetails:
        """Return a job's details."""
        return await self._run(verbs.get_job_info(submission_id))

    async def get_job_status(self, submission_id: str) -> JobStatus:
        """Return a job's status."""
        return (await self.get_job_info(submission_id)).status

    async def list_jobs(self) -> list[JobDetails]:
        """Return all jobs that the cluster ever had."""
        return await self._run(listing.list_jobs())

    async def get_job_logs(self, submission_id: str) -> str:
        """Return a job's whole log in one text."""
        return await self._run(log_files.get_job_logs(submission_id))

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        """Yield pieces of a job's log as the job writes them, until the stream ends."""
        await self.get_job_info(submission_id)
        async for text in _tail(await self.get_conn(), submission_id):
            yield text


def _prepare(transport: RequestsTransport, runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    from airflow_provider_rayjobs.packaging.upload import prepare_runtime_env

    return prepare_runtime_env(runtime_env, transport.run, limit=transport.cluster.upload_limit)


async def _next(pieces: AsyncIterator[str]) -> str:
    return await anext(pieces)


async def _tail(transport: AiohttpTransport, submission_id: str) -> AsyncGenerator[str, None]:
    async with transport.stream(f"{verbs.job_path(submission_id)}/logs/tail") as messages:
        async for text in messages:
            yield text


def _env_vars(runtime_env: Any) -> Any:
    """Return the ``env_vars`` of what may yet turn out to be no ``runtime_env``."""
    return runtime_env.get("env_vars") if isinstance(runtime_env, Mapping) else None
