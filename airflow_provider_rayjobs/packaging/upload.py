"""
Prepares a ``runtime_env`` for the cluster: packs and uploads its local files, and replaces them by their URIs.

``ray.job_submission.JobSubmissionClient`` does the same before it submits (``_upload_working_dir_if_needed`` and
``_upload_py_modules_if_needed`` of ``dashboard/modules/dashboard_sdk.py``).
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.runtime_env import check_runtime_env, is_uri, unknown_keys
from airflow_provider_rayjobs.exceptions import RayPackageError
from airflow_provider_rayjobs.packaging.package import Package, is_archive, pack_archive, pack_folder, pack_module
from airflow_provider_rayjobs.packaging.resolve import resolve_files
from airflow_provider_rayjobs.packaging.spool import readable, spooled, too_large
from airflow_provider_rayjobs.packaging.stores import store_once

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_rayjobs.packaging.stores import Store

log = logging.getLogger(__name__)

#: What Ray excludes from every ``working_dir`` (``RAY_RUNTIME_ENV_DEFAULT_EXCLUDES``), and the variables of Ray's own
#: client that change this.
DEFAULT_EXCLUDES = ".git,.venv,venv,__pycache__"
DEFAULT_EXCLUDES_VARIABLE = "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"
IGNORE_GITIGNORE_VARIABLE = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"


class ReadyRuntimeEnv(dict[str, Any]):
    """A ``runtime_env`` that no longer names anything on this machine."""


def prepare_runtime_env(
    runtime_env: Mapping[str, Any],
    store: Store,
    *,
    environ: Mapping[str, str] = os.environ,
) -> ReadyRuntimeEnv:
    """
    Pack and upload what a ``runtime_env`` names on this machine. This blocks: do not call it on an event loop.

    :param runtime_env: the ``runtime_env``, which is not changed; one that is ready is returned as it is.
    :param store: where the packages go.
    :param environ: where Ray's variables are read from.
    :return: the ``runtime_env`` to submit.
    :raises TypeError: if a value has a wrong type; the message names its key.
    :raises ValueError: if a value is wrong; the message names its key.
    :raises RayPackageError: if something can't be packed, or is too large.
    :raises RayJobsError: if the upload fails.
    """
    if isinstance(runtime_env, ReadyRuntimeEnv):
        return runtime_env
    check_runtime_env(runtime_env)
    if unknown := unknown_keys(runtime_env):
        log.warning(
            "runtime_env[%r] is not known to Ray itself; it has no effect unless the cluster has a plugin for it",
            unknown[0],
        )
    ready = ReadyRuntimeEnv(resolve_files(runtime_env))
    excludes = ready.get("excludes", [])
    ignore_files = [".rayignore"] if environ.get(IGNORE_GITIGNORE_VARIABLE) == "1" else [".gitignore", ".rayignore"]
    default = environ.get(DEFAULT_EXCLUDES_VARIABLE, DEFAULT_EXCLUDES)

    def upload(package: Package) -> str:
        _upload(package, store)
        return store.uri(package.name)

    wrap = store.is_shared_storage
    if (path := ready.get("working_dir")) is not None and not is_uri(path):
        names = [name.strip() for name in default.split(",") if name.strip()]
        ready["working_dir"] = upload(_pack_working_dir(path, [*names, *excludes], ignore_files, wrap))
    if "py_modules" in ready:
        ready["py_modules"] = [
            path if is_uri(path) else upload(_pack_py_module(path, excludes, ignore_files, wrap))
            for path in ready["py_modules"]
        ]
    return ready


def _pack_working_dir(path: str, excludes: Sequence[str], ignore_files: Sequence[str], wrap: bool) -> Package:
    if os.path.isdir(path):  # noqa: PTH112 - it never raises, unlike pathlib's
        return pack_folder(path, excludes, ignore_files, inside=False, wrap=wrap)
    if is_archive(path) and os.path.isfile(path):  # noqa: PTH113 - it never raises
        return pack_archive(path, wrap=wrap)
    raise _not_found("working_dir", path, "folder, .zip, .tar.gz, .tgz or .tar.xz file")


def _pack_py_module(path: str, excludes: Sequence[str], ignore_files: Sequence[str], wrap: bool) -> Package:
    if os.path.isdir(path):  # noqa: PTH112 - it never raises
        return pack_folder(path, excludes, ignore_files, inside=True, wrap=wrap)
    if path.endswith(".py") and os.path.isfile(path):  # noqa: PTH113 - it never raises
        return pack_module(path)
    if path.endswith(".whl") and os.path.isfile(path):  # noqa: PTH113 - it never raises
        return pack_archive(path)
    raise _not_found("py_modules", path, "folder of a module, .py file or .whl file")


def _not_found(key: str, path: str, wanted: str) -> RayPackageError:
    where = "" if Path(path).is_absolute() else f" in {str(Path.cwd())!r}"
    return RayPackageError(
        f"runtime_env[{key!r}]: there is no {wanted} {path!r}{where} on this Airflow worker; give the path of one, or "
        "a URI that the cluster can read (s3://, gs://, https://)"
    )


def _upload(package: Package, store: Store) -> None:
    """Make sure that a store has a package, for at least the next minutes."""

    def send() -> None:
        with spooled(package, store.limit) as spool:
            log.info(
                "Uploading %s: %d files, %s, as a package of %s (%s)",
                package.source,
                len(package.files),
                readable(package.size),
                readable(spool.size),
                package.name,
            )
            if not store.put(package.name, spool.opened):
                raise too_large(
                    package, f"{readable(spool.size)}, which the server, or a proxy in front of it, refuses (HTTP 413)"
                )

    if not store_once(store, package.name, send):
        where = store.where if store.is_shared_storage else "The cluster"
        log.info("%s has the files of %s already (%s)", where, package.source, package.name)
