"""Where packages go: each is sent once, also by tasks that run at the same time on one worker."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import threading
import time
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client.counts import Counts
from airflow_provider_rayjobs.exceptions import RayPackageError
from airflow_provider_rayjobs.packaging import stores
from airflow_provider_rayjobs.packaging.stores import ClusterStore, CountedStore, store_once
from airflow_provider_rayjobs.packaging.upload import prepare_runtime_env
from tests.support.clients import FakeTime, RequestsClient, cluster_at

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.scripted_server import ScriptedRay

PACKAGES = "/api/packages/gcs/.*"


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the lock files of other tests away."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def code(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    root.mkdir()
    (root / "main.py").write_text("x")
    return root


def asked(server: ScriptedRay) -> list[str]:
    return [one.method for one in server.received_on(".*", PACKAGES)]


def at_once(server: ScriptedRay, code: Path, number: int) -> None:
    """Prepare a ``runtime_env`` several times; all ask whether the package is there before the first one sends it."""
    together = threading.Barrier(number)
    found: list[dict[str, Any]] = []

    def task() -> None:
        client = RequestsClient(cluster_at(server), FakeTime())
        first = True

        def run(flow: Any) -> bool:
            nonlocal first
            result = client.run(flow)
            if first:
                first = False
                together.wait(20)
            return result

        found.append(prepare_runtime_env({"working_dir": str(code)}, ClusterStore(run, 100 << 20, server.url)))
        client.close()

    threads = [threading.Thread(target=task) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == number
    assert all(ready == found[0] for ready in found)
    assert set(server.packages) == {found[0]["working_dir"].removeprefix("gcs://")}


def test_tasks_at_the_same_time_send_a_package_once(scripted_ray: ScriptedRay, code: Path) -> None:
    at_once(scripted_ray, code, 5)
    assert sorted(asked(scripted_ray)) == ["GET"] * 9 + ["PUT"]


def test_without_lock_files_each_task_sends_for_itself(
    scripted_ray: ScriptedRay, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    at_once(scripted_ray, code, 2)
    assert sorted(asked(scripted_ray)) == ["GET", "GET", "PUT", "PUT"]


def test_a_link_in_the_place_of_a_lock_file_is_not_followed(
    scripted_ray: ScriptedRay, code: Path, own_locks: Path
) -> None:
    for number in range(256):
        (own_locks / f"airflow-rayjobs-{os.getuid()}-{number:02x}.lock").symlink_to(code / "main.py")
    at_once(scripted_ray, code, 1)
    assert (code / "main.py").read_text() == "x"


def lock_file(folder: Path) -> Path:
    key = hashlib.sha256(b"here name").hexdigest()
    return folder / f"airflow-rayjobs-{os.getuid()}-{key[:2]}.lock"


def test_a_pipe_in_the_place_of_a_lock_file_does_not_matter(own_locks: Path) -> None:
    os.mkfifo(lock_file(own_locks))
    sent: list[str] = []
    assert store_once(Kept(), "name", lambda: sent.append("x"))
    assert sent == ["x"]


def test_a_hard_link_in_the_place_of_a_lock_file_leaves_its_file(own_locks: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("own")
    lock_file(own_locks).hardlink_to(tmp_path / "own")
    assert store_once(Kept(), "name", lambda: None)
    assert (tmp_path / "own").read_text() == "own"


def test_a_lock_file_of_another_user_is_not_waited_for(own_locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lock_file(own_locks)
    path.touch()
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    path.rename(lock_file(own_locks))
    with lock_file(own_locks).open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        assert store_once(Kept(), "name", lambda: None)
        assert time.monotonic() - began < 10


def test_a_lock_file_that_can_t_be_read_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("an error of the disk")

    monkeypatch.setattr(os, "pread", refuse)
    assert store_once(Kept(), "name", lambda: None)


def test_a_task_does_not_wait_forever_for_another_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", stores.__name__)
    monkeypatch.setattr(stores, "LONGEST_WAIT", 0.7)
    sent: list[str] = []
    inside = threading.Event()
    done = threading.Event()

    def stuck() -> None:
        inside.set()
        done.wait(20)

    first = threading.Thread(target=store_once, args=(Kept(), "name", stuck))
    first.start()
    assert inside.wait(10)
    assert store_once(Kept(), "name", lambda: sent.append("second"))
    done.set()
    first.join(10)
    assert sent == ["second"]
    waits = "Waiting for another task of this worker that sends a package; sending name after 0 s at the latest"
    assert [record.getMessage() for record in caplog.records] == [waits]


class Kept(ClusterStore):
    """A store without packages."""

    def __init__(self) -> None:
        super().__init__(lambda flow: False, 0, "here")


def test_after_a_slow_upload_the_cluster_is_asked_again(
    scripted_ray: ScriptedRay, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "LOOK_AGAIN_AFTER", 0.0)
    at_once(scripted_ray, code, 1)
    assert asked(scripted_ray) == ["GET", "PUT", "GET"]


def test_a_package_that_the_cluster_lost_during_the_upload_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LOOK_AGAIN_AFTER", 0.0)
    store = ClusterStore(lambda flow: flow.__name__ == "put_package", 100, "here")
    assert not store.has("a.zip")
    with pytest.raises(RayPackageError, match=r"lost the package a\.zip right after it was uploaded; try again"):
        store.put("a.zip", BytesIO)


@pytest.mark.parametrize("accepted", [True, False])
def test_what_is_stored_is_counted(accepted: bool) -> None:
    class Repeated(Kept):
        """A store that needs two attempts."""

        def put(self, name: str, opened: Any) -> bool:
            opened()
            return bool(opened()) and accepted

    class Content(BytesIO):
        def __len__(self) -> int:
            return len(self.getbuffer())

    counts = Counts()
    store = CountedStore(Repeated(), counts)
    assert (store.where, store.limit, store.is_shared_storage) == ("here", 0, False)
    assert not store.has("a.zip")
    assert store.uri("a.zip") == "gcs://a.zip"
    assert store.put("a.zip", lambda: Content(b"x" * 100)) is accepted
    assert counts == Counts(upload_bytes=100 if accepted else 0)
