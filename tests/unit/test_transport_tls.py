"""Both senders over TLS: whom they trust, and that nobody else gets a credential."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs import protocol
from airflow_provider_rayjobs.connection import read_connection
from tests.support.scripted_server import ScriptedRay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.clients import Client
    from tests.support.private_ca import PrivateCA

    Connect = Callable[..., Client]

CREDENTIALS = {"headers": {"Authorization": "Bearer tok-9f8e7d6c"}, "cookies": {"session": "cookie-secret"}}


def failure(client: Client) -> errors.RayTLSError:
    """Ask for the version, which fails; the message is one line that begins with the address."""
    with pytest.raises(errors.RayTLSError) as caught:
        client.run(protocol.get_version())
    assert str(caught.value).startswith(client.transport.cluster.address + ": TLS failed")
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def tls_ray(private_ca: PrivateCA) -> Iterator[ScriptedRay]:
    with ScriptedRay(tls=private_ca.server_context()) as server:
        yield server


@pytest.fixture
def demanding_ray(private_ca: PrivateCA) -> Iterator[ScriptedRay]:
    with ScriptedRay(tls=private_ca.server_context(require_client_cert=True)) as server:
        yield server


@pytest.mark.parametrize("bundle", [None, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_private_authority_is_not_trusted_unasked_and_no_credential_is_sent(
    bundle: str | None, tls_ray: ScriptedRay, private_ca: PrivateCA, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    if bundle is not None:
        monkeypatch.setenv(bundle, str(private_ca.ca_file))
        connect(tls_ray).run(protocol.get_version())
        return
    client = connect(tls_ray, **CREDENTIALS)
    error = failure(client)
    assert not error.maybe_sent
    assert "check the server's certificate, the connection's 'verify'" in str(error)
    assert (client.time.slept, tls_ray.received) == ([], [])


def test_a_ca_file_is_trusted_whatever_the_environment_says(
    tls_ray: ScriptedRay, private_ca: PrivateCA, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
    assert connect(tls_ray, verify=str(private_ca.ca_file)).run(protocol.get_version()).ray_version == "2.60.0"


def test_a_ca_folder_is_trusted(tls_ray: ScriptedRay, private_ca: PrivateCA, connect: Connect, tmp_path: Path) -> None:
    shutil.copy(private_ca.ca_file, tmp_path / "private.pem")
    command = ["openssl", "x509", "-in", str(private_ca.ca_file), "-noout", "-hash"]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / f"{name}.0").symlink_to("private.pem")
    assert connect(tls_ray, verify=str(tmp_path)).run(protocol.get_version()).ray_version == "2.60.0"


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # which urllib3 says by itself
def test_verify_false_takes_any_certificate(
    tls_ray: ScriptedRay, connect: Connect, monkeypatch: pytest.MonkeyPatch, private_ca: PrivateCA
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(private_ca.server_key))
    assert connect(tls_ray, verify=False).run(protocol.get_version()).ray_version == "2.60.0"


def test_a_ca_file_that_went_away_is_named(tls_ray: ScriptedRay, connect: Connect, tmp_path: Path) -> None:
    client = connect(tls_ray, verify=str(tmp_path / "gone.pem"))
    with pytest.raises(errors.RayConnectionConfigError, match=r"'ray_test', field 'verify'.*gone\.pem"):
        client.run(protocol.get_version())


@pytest.mark.parametrize("key_apart", [True, False])
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_client_certificate_is_shown_where_one_is_demanded(
    key_apart: bool, demanding_ray: ScriptedRay, private_ca: PrivateCA, connect: Connect, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(private_ca.client_cert.read_bytes() + private_ca.client_key.read_bytes())
    pair = (private_ca.client_cert, private_ca.client_key) if key_apart else (both, both)
    cert = (str(pair[0]), str(pair[1]))
    for verify in (str(private_ca.ca_file), False):
        client = connect(demanding_ray, verify=verify, client_cert=cert)
        assert client.run(protocol.get_version()).ray_version == "2.60.0"
    with pytest.raises(errors.RayClusterUnreachableError):
        connect(demanding_ray, verify=str(private_ca.ca_file)).run(protocol.get_version())


def test_a_client_certificate_is_checked_when_the_connection_is_read(private_ca: PrivateCA, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.key"
    command = ["openssl", "pkey", "-in", str(private_ca.client_key), "-aes128", "-passout", "pass:x", "-out"]
    subprocess.run([*command, str(encrypted)], check=True, capture_output=True)
    for key in (encrypted, private_ca.server_key, private_ca.ca_file):
        extra = json.dumps({"client_cert": str(private_ca.client_cert), "client_key": str(key)})
        connection: Any = Connection(conn_id="ray_x", conn_type="ray_jobs", host="head", extra=extra)
        with pytest.raises(errors.RayConnectionConfigError, match=r"field 'client_cert': .*can't be used"):
            read_connection("ray_x", connection, {})


def test_https_towards_a_server_of_http_is_a_tls_error(scripted_ray: ScriptedRay, connect: Connect) -> None:
    error = failure(connect(scripted_ray.url.replace("http://", "https://"), **CREDENTIALS))
    assert "that the server speaks https" in str(error)
