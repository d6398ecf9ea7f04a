"""
Writes a job's result into a file beside its log, where Ray's dashboard serves it.

``job-driver-<submission id>.log`` becomes ``….result``. The file appears whole or not at all. Its first line names the
submission, and the length and digest of the value.

This module is shipped to the cluster: it needs the standard library only, of Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_rayjobs import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Name of the file that describes the task, beside this package.
TASK_FILE = "airflow_ray_job.json"

FORMAT = 1

#: Of a record that names what was stored elsewhere: a worker with an older version of the provider looks for another
#: name, so it must refuse the record.
FORMAT_WITH_KEY = 2

#: Largest value that is stored in ``result_path``, in bytes of JSON. The worker needs 14 to 50 times as much memory to
#: read one, and Airflow's default XCom backend on PostgreSQL holds at most 256 MiB.
STORED_LIMIT = 100_000_000

#: Environment variable in which Ray passes a job's metadata to the process of its entrypoint, as JSON.
CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"

_LOG_PREFIX = "job-driver-"


def write_at_once(text: str) -> None:
    """Write a text to the job's log, in one piece."""
    sys.stdout.flush()
    os.write(1, text.encode())  # the log is open for appending


def job_log() -> Path:
    """
    Return the path of the job's log, to which Ray redirects the output of the entrypoint.

    The output of this process may go elsewhere, such as into a pipe or a file. Then the log is open in one of the
    processes that started it, such as the shell of the entrypoint.

    :raises RuntimeError: if there is no such log.
    """
    first = ""
    own = _config().get("job_submission_id")
    for path in _outputs():
        log = Path(path)
        is_log = log.is_absolute() and log.name.startswith(_LOG_PREFIX) and log.suffix == ".log"
        if is_log and own in (None, log.stem[len(_LOG_PREFIX) :]):  # a process may read the log of another job
            return log
        first = first or path
    raise RuntimeError(f"the result can't be written: the standard output goes to {first}, not to the log of a Ray job")


def _outputs() -> Iterator[str]:
    """Yield the files that this process has open, its standard output first, then those of the ones that started it."""
    if sys.platform == "darwin":
        import fcntl

        for descriptor in (1, 2):
            try:
                yield fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0").decode()
            except OSError as e:
                yield str(e)
        return
    pid = os.getpid()
    try:
        while pid > 0:
            folder = Path(f"/proc/{pid}")
            # A shell keeps its own output open under another number while a command of it is redirected.
            for descriptor in (folder / "fd" / "1", *(folder / "fd").iterdir()):
                try:
                    yield str(descriptor.readlink())
                except OSError as e:  # closed by now
                    yield str(e)
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            pid = int(stat.rpartition(")")[2].split()[1])  # the name before it may contain anything
    except OSError:  # a process of another user
        return


def result_beside(log: Path) -> Path:
    """Return the path of the result of the job with this log."""
    return log.with_suffix(".result")


class Stored(NamedTuple):
    """
    A large result in the folder ``result_path``.

    :param key: the part of its name that no other result has; see :func:`name_of_stored`.
    :param remove: deletes it.
    """

    key: str
    remove: Callable[[], None]


def name_of_stored(submission_id: str, key: str) -> str:
    """
    Return the name of a large result. Each has its own: several processes of a job may report at the same time.

    :param key: empty for a result that an older version of the provider stored.
    """
    return f"{submission_id}.{key}.json" if key else f"{submission_id}.json"


def store_for(result_path: str | None, output: Path, value: str = "the value") -> Callable[[str], Stored] | None:
    """
    Return a function that stores a large result; None if there is no ``result_path``.

    The function raises ``ValueError`` if the result is larger than :data:`STORED_LIMIT`, and ``RuntimeError`` if it
    can't be stored.

    :param result_path: URL of a folder.
    :param output: the job's result file.
    :param value: what is stored, for messages.
    :raises ModuleNotFoundError: if ``fsspec`` is not installed on the cluster.
    :raises RuntimeError: if ``fsspec`` does not know the URL's scheme.
    """
    if result_path is None:
        return None
    submission_id = output.stem[len(_LOG_PREFIX) :]
    if result_path.startswith("file://"):
        save = _save_in_folder(result_path)
    else:
        try:
            fsspec = importlib.import_module("fsspec")
        except ModuleNotFoundError as e:
            e.msg = f"result_path {result_path} needs fsspec on the cluster; add it to runtime_env['pip']"
            raise
        with _told(result_path, value):
            save = _save_with(fsspec, result_path)

    def store(text: str) -> Stored:
        _check_stored_size(text)
        key = secrets.token_hex(8)
        with _told(result_path, value):
            return Stored(key, save(name_of_stored(submission_id, key), text))

    return store


def _save_in_folder(url: str) -> Callable[[str, str], Callable[[], None]]:
    """Return a function that saves a text under a name in a mounted folder, and returns what deletes it."""
    folder = Path("/" + url[len("file://") :].lstrip("/"))

    def save(name: str, text: str) -> Callable[[], None]:
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(folder / name, text)
        return (folder / name).unlink

    return save


def _save_with(fsspec: Any, url: str) -> Callable[[str, str], Callable[[], None]]:
    """Return a function as :func:`_save_in_folder` does, for object storage."""
    scheme, _, rest = url.partition("://")
    # The part before an @ is an Airflow connection, which the cluster does not know.
    place, slash, path = rest.partition("/")
    filesystem, root = fsspec.core.url_to_fs(f"{scheme}://{place.rpartition('@')[2]}{slash}{path}".rstrip("/"))

    def save(name: str, text: str) -> Callable[[], None]:
        filesystem.pipe_file(f"{root}/{name}", text.encode())
        return partial(filesystem.rm_file, f"{root}/{name}")

    return save


@contextlib.contextmanager
def _told(result_path: str, value: str) -> Iterator[None]:
    """Turn an error of the storage into one that names ``result_path``, so that it is not taken for the function's."""
    try:
        yield
    except Exception as e:  # noqa: BLE001 - of any library for storage
        scheme = result_path.partition("://")[0]
        if scheme == "file":
            need = "the folder mounted, and the right to write there"
        else:
            need = f"fsspec's package for {scheme}:// (runtime_env['pip'] can install it), and the right to write there"
        raise RuntimeError(
            f"{value} can't be stored in result_path {result_path}: {type(e).__name__}: {e}; the cluster's nodes need "
            f"{need}"
        ) from None


def _check_stored_size(text: str) -> None:
    if len(text) > STORED_LIMIT:
        raise ValueError(
            f"the value has {len(text):,} bytes as JSON, and a task returns at most {STORED_LIMIT:,}; store it "
            "yourself, and return its path"
        )


def submission() -> str | None:
    """Return what identifies this submission among those with its id; None outside the process of an entrypoint."""
    return _config().get(metadata.SUBMISSION)


def call_digest() -> str | None:
    """Return the digest of the file with the function's arguments; None outside the process of an entrypoint."""
    return _config().get(metadata.CALL)


def _config() -> dict[str, str]:
    """Return the metadata that Ray passes to the process of an entrypoint: the job's, and its id."""
    config: dict[str, Any] = json.loads(os.environ.get(CONFIG_VARIABLE) or "{}")
    found: dict[str, str] = config.get("metadata") or {}
    return found


def write_record(
    output: Path,
    outcome: str,
    text: str,
    *,
    of: str | None = None,
    key: str | None = None,
    progress: dict[str, Any] | None = None,
) -> None:
    """
    Write the result: a line of JSON that describes the content, then the content.

    :param outcome: ``value``, ``error`` or ``stored``.
    :param text: JSON, in ASCII.
    :param of: the text that was stored elsewhere, which the first line then describes.
    :param key: the key of what was stored.
    :param progress: the last report.
    """
    described = (text if of is None else of).encode("ascii")
    header = {
        "format": FORMAT if key is None else FORMAT_WITH_KEY,
        "submission": submission(),
        "outcome": outcome,
        "key": key,
        "bytes": len(described),
        "sha256": hashlib.sha256(described).hexdigest(),
        "progress": progress,
    }
    _write_whole(output, f"{json.dumps(header)}\n{text}")


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # several processes of a job may write
    part.write_text(text, encoding="ascii")
    part.replace(path)
