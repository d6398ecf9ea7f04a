"""A runtime_env on its way to the cluster: files are uploaded once, URIs pass, all else is refused by its key."""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.exceptions import (
    RayAuthError,
    RayClusterUnreachableError,
    RayPackageError,
    RayPackageTooLargeError,
)
from airflow_provider_rayjobs.packaging.stores import ClusterStore
from airflow_provider_rayjobs.packaging.upload import prepare_runtime_env
from tests.support import answers
from tests.support.clients import FakeTime, RequestsClient, cluster_at
from tests.support.scripted_server import ScriptedRay

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = "/api/packages/gcs/.*"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    for name in ("main.py", ".git/config", "venv/x.py", "pkg/__init__.py", "pkg/__pycache__/x.pyc", "big.log"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".gitignore").write_text("*.log\n")
    return root


def names(server: ScriptedRay, uri: str) -> list[str]:
    with zipfile.ZipFile(BytesIO(server.packages[uri.removeprefix("gcs://")])) as archive:
        return archive.namelist()


def asked(server: ScriptedRay) -> list[str]:
    return [one.method for one in server.received_on(".*", PACKAGES)]


def test_a_folder_is_uploaded_once(scripted_ray: ScriptedRay, prepare: Any, code: Path) -> None:
    given = {"working_dir": str(code), "excludes": ["pkg/"], "env_vars": {"A": "b"}}
    ready = prepare(given)
    assert ready == {**given, "working_dir": ready["working_dir"]}
    assert given["working_dir"] == str(code)
    assert names(scripted_ray, ready["working_dir"]) == [".gitignore", "main.py"]
    assert asked(scripted_ray) == ["GET", "PUT"]
    assert prepare(given) == prepare({**given, "working_dir": code}) == ready
    assert asked(scripted_ray) == ["GET", "PUT", "GET", "GET"]
    assert prepare(ready) is ready
    assert asked(scripted_ray) == ["GET", "PUT", "GET", "GET"]


def test_a_package_that_ray_has_dropped_is_uploaded_again(scripted_ray: ScriptedRay, prepare: Any, code: Path) -> None:
    first = prepare({"working_dir": str(code)})
    scripted_ray.packages.clear()
    assert prepare({"working_dir": str(code)}) == first
    assert len(scripted_ray.packages) == 1


def test_rays_variables_change_what_is_left_out(scripted_ray: ScriptedRay, prepare: Any, code: Path) -> None:
    def packed(**environ: str) -> list[str]:
        return names(scripted_ray, prepare({"working_dir": str(code)}, **environ)["working_dir"])

    assert packed() == [".gitignore", "main.py", "pkg/__init__.py"]
    assert "big.log" in packed(RAY_RUNTIME_ENV_IGNORE_GITIGNORE="1")
    assert "big.log" not in packed(RAY_RUNTIME_ENV_IGNORE_GITIGNORE="0")
    assert ".git/config" in packed(RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES="")
    assert "main.py" not in packed(RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES="main.py, pkg")


def test_modules_are_uploaded_and_uris_pass(scripted_ray: ScriptedRay, prepare: Any, code: Path) -> None:
    (code / "one.py").write_text("X = 1")
    wheel = code / "my_lib-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("my_lib.py", "")
    uris = ["s3://b/a.zip", "gcs://m.whl", "https://x/y.zip?token=1", "local:///opt/code"]
    ready = prepare({"py_modules": [str(code / "pkg"), *uris, code / "one.py", str(wheel)]})["py_modules"]
    assert ready[1:5] == uris
    assert names(scripted_ray, ready[0]) == ["pkg/__init__.py", "pkg/__pycache__/x.pyc"]  # as Ray: no default excludes
    assert names(scripted_ray, ready[5]) == ["one.py"]
    assert names(scripted_ray, ready[6]) == ["my_lib.py"]
    assert ready[6].startswith("gcs://my_lib-1.0-0_")


@pytest.mark.parametrize("uri", ["s3://b/a.zip", "gs://b/a.tar.gz", "gcs://_ray_pkg_x.zip", "file:///nfs/a.zip"])
def test_a_working_dir_that_the_cluster_reads_itself_passes(prepare: Any, uri: str) -> None:
    assert prepare({"working_dir": uri}) == {"working_dir": uri}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"working_dir": "/no/such"}, r"runtime_env\['working_dir'\]: there is no folder, .zip, .* file '/no/such'"),
        ({"working_dir": "no/such"}, r"file 'no/such' in '.*' on this Airflow worker; give the path of one"),
        ({"working_dir": "/etc/hostname"}, r"no folder, .zip, .* file '/etc/hostname'"),
        ({"working_dir": "/no/such.zip"}, r"file '/no/such.zip' on this"),
        ({"py_modules": ["/no/such"]}, r"runtime_env\['py_modules'\]: there is no folder of a module, .* '/no/such'"),
        ({"py_modules": ["/no/such.py"]}, r"file '/no/such.py' on this"),
        ({"pip": "/no/req.txt"}, r"runtime_env\['pip'\]: the file '/no/req.txt' can't be read \(No such file"),
        ({"uv": "/no/req.txt"}, r"runtime_env\['uv'\]: the file"),
        ({"conda": "/no/env.yml"}, r"runtime_env\['conda'\]: the file '/no/env.yml' can't be read"),
        ({"conda": "/no/env"}, r"runtime_env\['conda'\]: there is no folder '/no/env'"),
    ],
)
def test_what_is_not_there_is_named(scripted_ray: ScriptedRay, prepare: Any, given: Any, told: str) -> None:
    with pytest.raises(RayPackageError, match=told):
        prepare(given)
    assert not scripted_ray.received


def test_unknown_keys_are_a_warning(prepare: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert prepare({"my_plugin": {"a": 1}}) == {"my_plugin": {"a": 1}}
    assert "runtime_env['my_plugin'] is not known to Ray itself; it has no effect unless" in caplog.text


def test_too_large_for_the_server(scripted_ray: ScriptedRay, prepare: Any, code: Path) -> None:
    scripted_ray.script("PUT", PACKAGES, answers.too_large())
    with pytest.raises(RayPackageTooLargeError, match=r"refuses \(HTTP 413\).*The largest of its 3 files"):
        prepare({"working_dir": str(code)})


def test_too_large_for_the_limit_is_not_sent(scripted_ray: ScriptedRay, prepare: Any, code: Path) -> None:
    with pytest.raises(RayPackageTooLargeError, match="the limit for uploads"):
        prepare({"working_dir": str(code)}, limit=100)
    assert asked(scripted_ray) == ["GET"]


def test_an_upload_is_sent_again_from_its_beginning(scripted_ray: ScriptedRay, prepare: Any, code: Path) -> None:
    scripted_ray.script("PUT", PACKAGES, answers.text(502, "bad gateway"), answers.lost())
    ready = prepare({"working_dir": str(code)})
    assert "main.py" in names(scripted_ray, ready["working_dir"])
    sent = scripted_ray.received_on("PUT", PACKAGES)
    assert len(sent) == 3
    assert len({one.body for one in sent}) == 1
    assert "transfer-encoding" not in sent[0].headers


def test_a_cluster_that_does_not_take_packages_is_told(scripted_ray: ScriptedRay, prepare: Any, code: Path) -> None:
    scripted_ray.script("GET", PACKAGES, answers.text(503, "no"), forever=True)
    with pytest.raises(RayClusterUnreachableError):
        prepare({"working_dir": str(code)})
    scripted_ray.clear()
    scripted_ray.script("PUT", PACKAGES, answers.unauthorized())
    with pytest.raises(RayAuthError):
        prepare({"working_dir": str(code)})


def test_a_server_that_hangs_up_in_the_middle_of_too_large_an_upload(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(5_000_000))
    with ScriptedRay(max_body=100_000) as server:
        client = RequestsClient(cluster_at(server), FakeTime())
        with pytest.raises(RayPackageTooLargeError, match=r"the package has 4.8 MiB, which the server.*HTTP 413"):
            prepare_runtime_env({"working_dir": str(tmp_path)}, ClusterStore(client.run, 100 << 20, server.url))
        client.close()
