"""Both senders over TLS: whom they trust, and that nobody else gets a credential."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.client import retries, verbs
from airflow_provider_rayjobs.cluster.connection import read_connection
from tests.support.forward_proxy import ForwardProxy
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
        client.run(verbs.get_version())
    assert str(caught.value).startswith(client.transport.cluster.address + ": the TLS handshake failed")
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
        connect(tls_ray).run(verbs.get_version())
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
    assert connect(tls_ray, verify=str(private_ca.ca_file)).run(verbs.get_version()).ray_version == "2.60.0"


def test_a_ca_folder_is_trusted(tls_ray: ScriptedRay, private_ca: PrivateCA, connect: Connect, tmp_path: Path) -> None:
    shutil.copy(private_ca.ca_file, tmp_path / "private.pem")
    command = ["openssl", "x509", "-in", str(private_ca.ca_file), "-noout", "-hash"]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / f"{name}.0").symlink_to("private.pem")
    assert connect(tls_ray, verify=str(tmp_path)).run(verbs.get_version()).ray_version == "2.60.0"


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # which urllib3 says by itself
def test_verify_false_takes_any_certificate(
    tls_ray: ScriptedRay, connect: Connect, monkeypatch: pytest.MonkeyPatch, private_ca: PrivateCA
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(private_ca.server_key))
    assert connect(tls_ray, verify=False).run(verbs.get_version()).ray_version == "2.60.0"


def test_a_ca_file_that_went_away_is_named(tls_ray: ScriptedRay, connect: Connect, tmp_path: Path) -> None:
    client = connect(tls_ray, verify=str(tmp_path / "gone.pem"))
    with pytest.raises(errors.RayConnectionConfigError, match=r"'ray_test', field 'verify'.*gone\.pem"):
        client.run(verbs.get_version())


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
        assert client.run(verbs.get_version()).ray_version == "2.60.0"
    with pytest.raises(errors.RayClusterUnreachableError):
        connect(demanding_ray, verify=str(private_ca.ca_file)).run(verbs.get_version())


def test_a_client_certificate_is_checked_when_the_connection_is_read(private_ca: PrivateCA, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.key"
    command = ["openssl", "pkey", "-in", str(private_ca.client_key), "-aes128", "-passout", "pass:x", "-out"]
    subprocess.run([*command, str(encrypted)], check=True, capture_output=True)
    for key in (encrypted, private_ca.server_key, private_ca.ca_file):
        extra = json.dumps({"client_cert": str(private_ca.client_cert), "client_key": str(key)})
        connection: Any = Connection(conn_id="ray_x", conn_type="ray_jobs", host="head", extra=extra)
        with pytest.raises(errors.RayConnectionConfigError, match=r"field 'client_cert': can't load"):
            read_connection("ray_x", connection, {})


def test_https_towards_a_server_of_http_is_a_tls_error(scripted_ray: ScriptedRay, connect: Connect) -> None:
    error = failure(connect(scripted_ray.url.replace("http://", "https://"), **CREDENTIALS))
    assert "that the server speaks https" in str(error)


@pytest.fixture
def tls_dribbler(private_ca: PrivateCA) -> Iterator[str]:
    """The address of a server whose answer comes byte by byte, for longer than anybody should wait."""
    stop = threading.Event()
    context = private_ca.server_context()

    def dribble(client: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            ends = time.monotonic() + 8
            while time.monotonic() < ends and not stop.wait(0.05):
                tls.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=dribble, args=[server.accept()[0]], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}"
        stop.set()
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("proxy", [False, True], ids=["no proxy", "https proxy"])
def test_an_answer_that_never_ends_is_cut_off_in_time_over_tls(
    proxy: bool, tls_dribbler: str, private_ca: PrivateCA, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    with contextlib.ExitStack() as stack:
        if proxy:
            forward = stack.enter_context(ForwardProxy(tls=private_ca.server_context()))
            monkeypatch.setenv("HTTPS_PROXY", forward.url)
        client = connect(tls_dribbler, verify=str(private_ca.ca_file), connect_timeout=0.5, read_timeout=0.5)
        began = time.monotonic()
        with pytest.raises(errors.RayClusterUnreachableError, match="no complete answer within 1 s"):
            client.run(verbs.get_version())
        assert time.monotonic() - began < 5
        assert not proxy or len(forward.carried) == 1
