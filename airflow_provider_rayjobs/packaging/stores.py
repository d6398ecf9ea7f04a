"""
Where packages are kept until the nodes of the cluster read them: here, Ray's own store on the head.

The other store, a folder in object storage, is in :mod:`airflow_provider_rayjobs.compat.package_folder`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from airflow_provider_rayjobs.client.package_store import has_package, put_package
from airflow_provider_rayjobs.exceptions import RayPackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_rayjobs.client.counts import Counts
    from airflow_provider_rayjobs.client.exchange import Body, Flow

log = logging.getLogger(__name__)

#: Ray keeps a package that no job uses for 600 s after it was looked at, unless the head has another setting. After an
#: upload that took longer than this, it is looked at again.
LOOK_AGAIN_AFTER = 30.0

#: Most seconds to wait for another task of this worker that sends the same package.
LONGEST_WAIT = 600.0
POLL = 0.2


class Store(Protocol):
    """
    A place for packages. A package's name stands for its content.

    :param where: address of the place, for messages.
    :param limit: most bytes that a package may have.
    :param is_shared_storage: whether it is a folder in object storage. From there Ray unpacks archives without the one
        folder at their top, and it never deletes there. Ray deletes a package of its own store with the last job that
        uses it.
    """

    where: str
    limit: int
    is_shared_storage: bool

    def has(self, name: str) -> bool:
        """Return whether the package is there, and will be for the next minutes."""

    def put(self, name: str, opened: Callable[[], Body]) -> bool:
        """Store a package; ``opened`` opens its content, for each attempt. False: it is too large for the server."""

    def uri(self, name: str) -> str:
        """Return the URI by which Ray's nodes read the package."""


class ClusterStore:
    """
    Ray's own store (``/api/packages/gcs/{name}``).

    :param run: runs a flow on the cluster.
    :param limit: most bytes that the cluster accepts.
    :param address: of the cluster.
    """

    is_shared_storage = False

    def __init__(self, run: Callable[[Flow[bool]], bool], limit: int, address: str) -> None:
        self._run = run
        self.limit = limit
        self.where = address
        self._looked: dict[str, float] = {}  # when each package was looked at

    def has(self, name: str) -> bool:
        """Return whether the cluster has a package; Ray then keeps it for 10 minutes, even if it comes only now."""
        self._looked[name] = time.time()  # the monotonic clock may stop while a virtual machine is paused
        return self._run(has_package(name))

    def put(self, name: str, opened: Callable[[], Body]) -> bool:
        """
        Upload a package.

        :raises RayPackageError: if the upload took so long that the cluster has deleted the package since.
        """
        if not self._run(put_package(name, opened)):
            return False
        looked = self._looked.get(name)
        # A package that was never looked at is kept until a job has used it.
        if looked is None or time.time() - looked < LOOK_AGAIN_AFTER or self.has(name):
            return True
        raise RayPackageError(f"the cluster lost the package {name} right after it was uploaded; try again")

    def uri(self, name: str) -> str:
        """Return the URI by which Ray's nodes read the package."""
        return f"gcs://{name}"


class CountedStore:
    """
    A store that counts the bytes that it stores.

    :param store: stores them.
    :param counts: where they are counted.
    """

    def __init__(self, store: Store, counts: Counts) -> None:
        self._store = store
        self._counts = counts
        self.where, self.limit, self.is_shared_storage = store.where, store.limit, store.is_shared_storage
        self.has, self.uri = store.has, store.uri

    def put(self, name: str, opened: Callable[[], Body]) -> bool:
        """Store a package, as :meth:`Store.put` does."""
        size = 0

        def measured() -> Body:
            nonlocal size
            body = opened()
            size = len(body)
            return body

        stored = self._store.put(name, measured)
        self._counts.upload_bytes += size if stored else 0
        return stored


def store_once(store: Store, name: str, send: Callable[[], None]) -> bool:
    """
    Send a package, unless the store has it. If several tasks of this worker send the same one, the first one does.

    :param name: name of the package.
    :param send: sends it.
    :return: whether it was sent.
    """
    began = time.time()
    if store.has(name):
        return False
    with _one_at_a_time(store, name) as turn:
        if turn.sent_since(began) and store.has(name):
            return False
        send()
        turn.note()
    return True


class _Turn:
    """
    The file that is locked while a package is sent. It holds which package was sent last, and when.

    :param file: descriptor of the file; None if it can't be locked.
    :param key: stands for the store and the package.
    """

    def __init__(self, file: int | None, key: str) -> None:
        self._file = file
        self._key = key

    def sent_since(self, began: float) -> bool:
        """Return whether another task has sent the package since a time (Unix seconds)."""
        if self._file is None:
            return False
        with contextlib.suppress(OSError, ValueError):
            key, _, sent = os.pread(self._file, 200, 0).decode(errors="replace").partition(" ")
            return key == self._key and float(sent) >= began
        return False

    def note(self) -> None:
        """Note that the package was sent now."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, f"{self._key} {time.time()}".encode(), 0)


@contextlib.contextmanager
def _one_at_a_time(store: Store, name: str) -> Iterator[_Turn]:
    """
    Hold a lock that tasks of this worker share. There are 256 lock files, so that they need not be removed.

    After ``LONGEST_WAIT``, and where no file can be locked, each task sends for itself.
    """
    key = hashlib.sha256(f"{store.where} {name}".encode()).hexdigest()
    path = Path(tempfile.gettempdir(), f"airflow-rayjobs-{os.getuid()}-{key[:2]}.lock")
    file = _opened(path)
    if file is None:
        yield _Turn(None, key)
        return
    try:
        yield _Turn(file if _locked(file, name) else None, key)
    finally:
        os.close(file)


def _opened(path: Path) -> int | None:
    """
    Open a lock file.

    Anyone may put something under its name, such as a pipe, a link to another file, or a file that they lock.

    :return: the descriptor; None if it can't be opened, or is not a file that belongs to this user and has one name.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    found = os.fstat(file)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and found.st_nlink == 1:
        return file
    os.close(file)
    return None


def _locked(file: int, name: str) -> bool:
    until = time.monotonic() + LONGEST_WAIT
    waits = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            if not waits:
                log.info(
                    "Waiting for another task of this worker that sends a package; sending %s after %d s at the latest",
                    name,
                    LONGEST_WAIT,
                )
            waits = True
            time.sleep(POLL)
        except OSError:  # a file system without locks
            return False
        else:
            return True
