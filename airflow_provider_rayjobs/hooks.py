"""Hooks for the Ray Jobs REST API: :class:`RayJobHook` is synchronous, :class:`RayJobAsyncHook` is for event loops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_rayjobs.client import listing, log_files, serve, verbs
from airflow_provider_rayjobs.client.cluster_status import describe_resources
from airflow_provider_rayjobs.client.submission import make_submission, with_runtime_env
from airflow_provider_rayjobs.client.threads import in_own_thread
from airflow_provider_rayjobs.cluster.fields import CONN_TYPE, DEFAULT_CONN_ID, field_behaviour, form_widgets
from airflow_provider_rayjobs.compat.connections import load_cluster, read_cluster
from airflow_provider_rayjobs.compat.masking import register_cluster, register_env_vars
from airflow_provider_rayjobs.exceptions import RayJobsError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes.given import check_one_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence

    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
    from airflow_provider_rayjobs.client.exchange import Flow
    from airflow_provider_rayjobs.client.requests_transport import RequestsTransport
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.jobs import JobDetails, JobStatus, VersionInfo
    from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
    from airflow_provider_rayjobs.packaging.stores import Store
    from airflow_provider_rayjobs.serve import ServeDetails

__all__ = ["RayJobAsyncHook", "RayJobHook"]

_T = TypeVar("_T")


class RayJobHook(BaseHook):
    """
    Synchronous client of one cluster's Jobs API, with the method and argument names of Ray's ``JobSubmissionClient``.

    Retries reads, stops and deletions when the connection is lost. A submission is looked up before it is sent again
    (see :meth:`submit_job`). Does not need the ``ray`` package. The routes are those of
    ``dashboard/modules/job/job_head.py`` (Ray 2.60).

    Example::

        with contextlib.closing(RayJobHook("ray_default")) as hook:
            submission_id = hook.submit_job(entrypoint="echo hello")
            print(submission_id, hook.get_job_status(submission_id))

    :param ray_conn_id: Airflow connection of type ``ray_jobs``, which is read at the first request.
    :param cluster: instead of it: a cluster that KubeRay made, as ``with ray_cluster(…) as cluster`` gives it to tasks.
    :raises ValueError: if both are given.
    """

    conn_name_attr = "ray_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONN_TYPE
    hook_name = "Ray Jobs"

    def __init__(
        self,
        ray_conn_id: str = default_conn_name,
        *,
        cluster: ClusterRef | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ray_conn_id = ray_conn_id
        check_one_cluster(ray_conn_id, cluster)
        self.cluster_ref = _ref(cluster)
        self._create_cluster = True  # only if the connection asks for it
        #: Returns the options with which Kubernetes is asked for the way to a cluster that KubeRay made.
        self.kubernetes_options: Callable[[], dict[str, Any]] = dict

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels, placeholders and hidden fields of the connection form."""
        return field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields that the connection form has for the keys of the extra."""
        return form_widgets()

    @cached_property
    def cluster(self) -> ClusterConnection:
        """
        The cluster that the connection describes.

        :raises RayConnectionConfigError: if the connection has another type or an invalid value.
        :raises RayKubernetesError: if a cluster that KubeRay made is gone, or Kubernetes can't be asked.
        """
        if self.cluster_ref is not None:
            from airflow_provider_rayjobs.kubernetes.connect import connect

            return connect(self.cluster_ref, self.log, **self.kubernetes_options())
        cluster = load_cluster(self.ray_conn_id, self.get_connection(self.ray_conn_id), create=self._create_cluster)
        register_cluster(cluster)
        return cluster

    @cached_property
    def _transport(self) -> RequestsTransport:
        from airflow_provider_rayjobs.client.requests_transport import RequestsTransport

        return RequestsTransport(self.cluster)

    def get_conn(self) -> RequestsTransport:
        """Return the transport, which sends the hook's requests."""
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

        :raises RayClusterUnreachableError: if there is no usable answer.
        :raises RayProtocolError: if the address does not belong to a Ray dashboard.
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

        The id is fixed before the request: it is the caller's, or random. When the answer is lost or unclear, the hook
        looks the id up. If the cluster has this submission, it was accepted; if not, the same id is sent again.

        :param entrypoint: command line that the cluster runs in a shell, or a list of words, which is quoted.
        :param runtime_env: Ray's runtime environment; local files in it are uploaded first, see
            :meth:`prepare_runtime_env`.
        :param submission_id: id of the job, made of letters, digits, ``_``, ``.`` and ``-``.
        :param metadata: strings that Ray stores with the job; the connection's metadata takes precedence.
        :param entrypoint_num_cpus: CPU cores to reserve for the entrypoint.
        :param entrypoint_num_gpus: GPUs to reserve for the entrypoint.
        :param entrypoint_memory: memory to reserve for the entrypoint, in bytes.
        :param entrypoint_resources: custom resources to reserve for the entrypoint.
        :param entrypoint_label_selector: labels that the entrypoint's node must have.
        :param submission_key: identifies this submission across processes: a second call with the same id and key
            returns the job of the first call. By default random.
        :return: the submission id.
        :raises ValueError: if an argument is invalid; nothing has been sent.
        :raises TypeError: if an argument has the wrong type; nothing has been sent.
        :raises RayPackageError: if local files can't be packed or are too large; no job has been submitted.
        :raises RayJobExistsError: if another job has this submission id.
        :raises RayRequestRefusedError: if Ray refuses the request.
        :raises RayClusterUnreachableError: if the cluster can't be reached, or contact is lost for longer than the
            connection's ``unreachable_timeout``.
        """
        register_env_vars(_env_vars(runtime_env), passing=True)
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
        adopt = self._transport.counts.adopt
        return self._transport.run(verbs.submit_job(submission, is_ours, patience=patience, adopt=adopt))

    def prepare_runtime_env(self, runtime_env: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """
        Upload the local files of a ``runtime_env``, and return the ``runtime_env`` to submit.

        A local ``working_dir`` and local ``py_modules`` become packages on the cluster (``PUT
        /api/packages/gcs/{name}``) or in the connection's ``package_folder``, unless they are there already. The files
        of ``pip``, ``uv`` and ``conda`` become lists and dicts, as with Ray's own client. All other values are returned
        unchanged.

        :param runtime_env: Ray's runtime environment.
        :raises ValueError: if a value is invalid; the message names its key.
        :raises TypeError: if a value has the wrong type; the message names its key.
        :raises RayPackageError: if local files can't be packed or are too large.
        :raises RayJobsError: if the upload fails.
        """
        return None if runtime_env is None else _prepare(self._transport, runtime_env)

    def stop_job(self, submission_id: str) -> bool:
        """
        Ask a job to stop (``POST /api/jobs/{id}/stop``). It becomes STOPPED some seconds later.

        :param submission_id: the job.
        :return: True if it was running, False if it had already ended.
        :raises RayJobNotFoundError: if there is no such job.
        """
        return self._transport.run(verbs.stop_job(submission_id))

    def delete_job(self, submission_id: str) -> bool:
        """
        Delete the record of a job that has ended (``DELETE /api/jobs/{id}``).

        :param submission_id: the job.
        :return: True if it was deleted.
        :raises RayJobNotFoundError: if there is no such job.
        :raises RayAPIError: if the job has not ended yet.
        """
        return self._transport.run(verbs.delete_job(submission_id))

    def get_job_info(self, submission_id: str) -> JobDetails:
        """
        Return a job's details (``GET /api/jobs/{id}``).

        :param submission_id: the job.
        :raises RayJobNotFoundError: if there is no such job.
        """
        return self._transport.run(verbs.get_job_info(submission_id))

    def get_job_status(self, submission_id: str) -> JobStatus:
        """Return a job's status; takes and raises what :meth:`get_job_info` does."""
        return self.get_job_info(submission_id).status

    def list_jobs(self) -> list[JobDetails]:
        """
        Return all jobs that the cluster has on record (``GET /api/jobs/``).

        The head needs about 0.3 ms per job on record, and answers no other request meanwhile.
        """
        return self._transport.run(listing.list_jobs())

    def get_job_logs(self, submission_id: str) -> str:
        """
        Return a job's whole log as one string of at most 256 MiB (``GET /api/jobs/{id}/logs``).

        Ray fails there when the log is not valid UTF-8. Then the hook reads the log file (``GET /api/v0/logs/file``),
        with replacement characters.

        :param submission_id: the job.
        :raises RayJobNotFoundError: if there is no such job.
        :raises RayProtocolError: if the log is larger; use :meth:`tail_job_logs` instead.
        """
        return self._transport.run(log_files.get_job_logs(submission_id))

    def tail_job_logs(self, submission_id: str) -> Generator[str, None, None]:
        """
        Yield pieces of a job's log as the job writes them, from its beginning until the stream ends.

        Reads the WebSocket ``GET /api/jobs/{id}/logs/tail``. The end of the stream says nothing about the job's
        outcome. To stop reading earlier, close the generator, for instance with ``contextlib.closing``.

        :param submission_id: the job.
        :raises RayJobNotFoundError: if there is no such job.
        :raises RayClusterUnreachableError: if the stream breaks off.
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

    def get_serve_details(self) -> ServeDetails:
        """
        Return the applications of the cluster's Ray Serve (``GET /api/serve/applications/``).

        :return: no applications, if Serve has not been started.
        :raises RayRequestRefusedError: if Ray Serve is not installed on the cluster.
        """
        return self._transport.run(serve.get_serve_details())

    def deploy_applications(self, config: Mapping[str, Any]) -> None:
        """
        Replace the applications of the cluster's Ray Serve (``PUT /api/serve/applications/``).

        Does not wait until they are healthy. All applications that were deployed with a config before, and are not in
        this one, are deleted. So the request is sent once only.

        :param config: a ``ServeDeploySchema``, as ``serve deploy`` sends it.
        :raises RayRequestRefusedError: if Serve refuses the config, or is not installed on the cluster.
        :raises RayClusterUnreachableError: if contact was lost; Serve may have got the config.
        """
        self._transport.run(serve.deploy_applications(config))

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection for Airflow's form; the text has the cluster's version and resources, or the error."""
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
    The methods of :class:`RayJobHook` as coroutines, with the same arguments, results and errors.

    Example::

        hook = RayJobAsyncHook("ray_default")
        try:
            print([job.submission_id for job in await hook.list_jobs()])
        finally:
            await hook.close()

    :param ray_conn_id: Airflow connection of type ``ray_jobs``, which is read at the first request, without blocking
        the event loop.
    :param cluster: instead of it: a cluster that KubeRay made.
    :raises ValueError: if both are given.
    """

    def __init__(
        self,
        ray_conn_id: str = RayJobHook.default_conn_name,
        *,
        cluster: ClusterRef | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_one_cluster(ray_conn_id, cluster)
        self.ray_conn_id = ray_conn_id
        self.cluster_ref = _ref(cluster)
        self._cluster: ClusterConnection | None = None
        self._transport: AiohttpTransport | None = None

    async def get_conn(self) -> AiohttpTransport:
        """Return the transport, which sends the hook's requests and belongs to the running event loop."""
        if self._transport is None:
            from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

            if self._cluster is None:
                self._cluster = await self._read_cluster()
            self._transport = AiohttpTransport(self._cluster)
        return self._transport

    async def _read_cluster(self) -> ClusterConnection:
        if self.cluster_ref is not None:
            from airflow_provider_rayjobs.kubernetes.connect import async_connect

            return await async_connect(self.cluster_ref, self.log)
        return await read_cluster(RayJobHook(self.ray_conn_id), self.ray_conn_id)

    async def close(self) -> None:
        """Close the HTTP session; the next request opens another."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def _run(self, flow: Flow[_T]) -> _T:
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
        """Submit a job, exactly once; takes the arguments of :meth:`RayJobHook.submit_job`."""
        cluster = (await self.get_conn()).cluster
        submission, is_ours = make_submission(cluster, runtime_env=runtime_env, **job)
        submission = with_runtime_env(submission, await self.prepare_runtime_env(runtime_env))
        return await self._run(verbs.submit_job(submission, is_ours, patience=cluster.unreachable_timeout))

    async def prepare_runtime_env(self, runtime_env: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Upload the local files of a ``runtime_env``, in a thread: packing and sending would block the event loop."""
        cluster = (await self.get_conn()).cluster
        if runtime_env is None:
            return None

        def prepare() -> dict[str, Any]:
            from airflow_provider_rayjobs.client.requests_transport import RequestsTransport

            with contextlib.closing(RequestsTransport(cluster)) as transport:
                return _prepare(transport, runtime_env)

        return await in_own_thread(prepare)

    async def stop_job(self, submission_id: str) -> bool:
        """Ask a job to stop; return True if it was running."""
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
        """Return all jobs that the cluster has on record."""
        return await self._run(listing.list_jobs())

    async def get_job_logs(self, submission_id: str) -> str:
        """Return a job's whole log as one string."""
        return await self._run(log_files.get_job_logs(submission_id))

    async def get_serve_details(self) -> ServeDetails:
        """Return the applications of the cluster's Ray Serve."""
        return await self._run(serve.get_serve_details())

    async def deploy_applications(self, config: Mapping[str, Any]) -> None:
        """
        Replace the applications of the cluster's Ray Serve, without waiting for them.

        If the connection breaks, aiohttp may send the request a second time at once.
        """
        await self._run(serve.deploy_applications(config))

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        """Yield pieces of a job's log as the job writes them, until the stream ends."""
        await self.get_job_info(submission_id)
        async for text in _tail(await self.get_conn(), submission_id):
            yield text


def _ref(cluster: ClusterRef | Mapping[str, Any] | None) -> ClusterRef | None:
    if cluster is None:
        return None
    from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef

    if isinstance(cluster, ClusterRef):
        return cluster
    try:
        return ClusterRef.from_json(cluster)
    except ValueError as e:
        raise RayKubernetesRefusedError(str(e)) from e


def _prepare(transport: RequestsTransport, runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    from airflow_provider_rayjobs.packaging.upload import prepare_runtime_env

    return prepare_runtime_env(runtime_env, package_store(transport))


def package_store(transport: RequestsTransport) -> Store:
    """Return where packages of local files go: to the connection's ``package_folder``, or to the cluster itself."""
    from airflow_provider_rayjobs.packaging.stores import ClusterStore, CountedStore

    cluster = transport.cluster
    if cluster.package_folder:
        from airflow_provider_rayjobs.compat.package_folder import PackageFolder

        return CountedStore(PackageFolder(cluster.conn_id, cluster.package_folder), transport.counts)
    return CountedStore(ClusterStore(transport.run, cluster.upload_limit, cluster.address), transport.counts)


async def _next(pieces: AsyncIterator[str]) -> str:
    return await anext(pieces)


async def _tail(transport: AiohttpTransport, submission_id: str) -> AsyncGenerator[str, None]:
    async with transport.stream(f"{verbs.job_path(submission_id)}/logs/tail") as messages:
        async for text in messages:
            yield text


def _env_vars(runtime_env: Any) -> Any:
    """Return the ``env_vars`` of a ``runtime_env`` that has not been checked yet."""
    return runtime_env.get("env_vars") if isinstance(runtime_env, Mapping) else None
