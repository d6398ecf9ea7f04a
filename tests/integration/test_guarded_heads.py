"""Real heads with access control: in token mode, and behind an HTTPS proxy with a login. Also Ray's own addresses."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

import airflow_provider_rayjobs
from airflow_provider_rayjobs import exceptions
from airflow_provider_rayjobs.hooks import RayJobAsyncHook, RayJobHook
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor, RayJobSensor
from tests.support import command_line, environment
from tests.support.ray_head import TOKEN_MODE_SINCE, RayHead, require_ray, require_ray_since
from tests.support.reverse_proxy import ReverseProxy
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.private_ca import PrivateCA

# Tests with their own heads run one at a time.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("heads")]

TOKEN = secrets.token_hex(32)


@pytest.fixture(scope="module")
def token_head() -> Iterator[RayHead]:
    """A head in token mode; older Ray versions ignore the token."""
    with RayHead(num_cpus=1, token=TOKEN, ray_bin=require_ray()) as head:
        yield head


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that creates a hook with a connection with these fields."""
    made: list[RayJobHook] = []

    def hook(host: str, **fields: Any) -> RayJobHook:
        text = json.dumps({"conn_type": "ray_jobs", "host": host} | fields)
        monkeypatch.setenv("AIRFLOW_CONN_RAY_GUARDED", text)
        made.append(RayJobHook("ray_guarded"))
        return made[-1]

    yield hook
    for one in made:
        one.close()


def run_a_job(hook: RayJobHook, head: RayHead) -> None:
    """Submit a job, follow its log through the WebSocket, read the outcome, list and delete: every kind of request."""
    submission_id = hook.submit_job(entrypoint="echo let in", submission_id=f"in-{uuid.uuid4().hex[:8]}")
    assert "let in" in "".join(hook.tail_job_logs(submission_id))
    head.wait_job(submission_id, until={"SUCCEEDED"})
    assert hook.get_job_status(submission_id) == "SUCCEEDED"
    assert "let in" in hook.get_job_logs(submission_id)
    assert submission_id in [job.submission_id for job in hook.list_jobs()]
    assert hook.stop_job(submission_id) is False
    assert hook.delete_job(submission_id) is True


@pytest.mark.timeout(900)
def test_a_head_in_token_mode_accepts_the_token(token_head: RayHead, connection: Any, tmp_path: Path) -> None:
    require_ray_since(TOKEN_MODE_SINCE, "RAY_AUTH_MODE=token")
    run_a_job(connection(token_head.url, password=TOKEN), token_head)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    run_a_job(connection(token_head.url, extra={"token_file": str(file)}), token_head)


WANTS_A_TOKEN = "HTTP 401: this Ray cluster requires a token; connection 'ray_guarded' has none"
REFUSED = "HTTP 403: the cluster refused the token of connection 'ray_guarded'"


def errors_without_access(hook: RayJobHook) -> dict[str, str]:
    """Return the error of each client of the cluster with a connection that has no access."""
    run_id = uuid.uuid4().hex
    errors = {"hook": failure(lambda: hook.submit_job(entrypoint="true"), exceptions.RayAuthError)}
    errors["async hook"] = failure(lambda: asyncio.run(by_async_hook()), exceptions.RayAuthError)
    fields = {"task_id": "task", "ray_conn_id": "ray_guarded"}
    make = partial(RaySubmitJobOperator, entrypoint="true", retries=3, **fields)
    for deferrable in (False, True):
        tries = Tries(partial(make, deferrable=deferrable), run_id)
        errors[f"operator {deferrable}"] = failure(tries.run, AirflowFailException)
    for sensor in (RayClusterSensor(**fields), RayJobSensor(submission_id="x", **fields)):
        for deferrable in (False, True):
            sensor.deferrable = deferrable
            context = Tries(make, run_id).context()
            errors[f"{sensor.kind} sensor {deferrable}"] = failure(
                partial(sensor.execute, context), AirflowFailException
            )
        # Deferred while it had access, which it has lost since.
        event = asyncio.run(first_event(sensor, context))
        errors[f"{sensor.kind} trigger"] = failure(
            partial(sensor.execute_complete, context, event), AirflowFailException
        )
    is_well, errors["test button"] = hook.test_connection()
    assert not is_well
    # Without it, Airflow 2.11 prints a warning in every process that imports it.
    env = command_line.environment("", AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY="True")
    done = command_line.finish(command_line.start("", "list", "--conn-id", "ray_guarded", env=env))
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    errors["command line"] = done.err
    return errors


def failure(call: Callable[[], object], kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


async def by_async_hook() -> None:
    hook = RayJobAsyncHook("ray_guarded")
    try:
        await hook.get_version()
    finally:
        await hook.close()


async def first_event(sensor: Any, context: Any) -> Any:
    """Return the event of a sensor's trigger."""
    with pytest.raises(TaskDeferred) as caught:
        sensor._defer(context, time.time() + 60)
    events = caught.value.trigger.run()
    try:
        return (await anext(events)).payload
    finally:
        await events.aclose()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("password", "words"), [("", WANTS_A_TOKEN), ("f" * 64, REFUSED)], ids=["none", "wrong"])
def test_each_client_reports_why_access_is_denied(
    password: str, words: str, token_head: RayHead, connection: Any
) -> None:
    require_ray_since(TOKEN_MODE_SINCE, "RAY_AUTH_MODE=token")
    errors = errors_without_access(connection(token_head.url, password=password))
    assert len(errors) == 12
    assert [way for way, text in errors.items() if words not in text or "auth_token" not in text] == []
    assert "f" * 64 not in str(errors)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"Authorization": f"Bearer {'f' * 64}"}, 403)])
def test_response_of_a_head_that_denies_access(headers: dict[str, str], status: int, token_head: RayHead) -> None:
    """The provider recognizes Ray's 401 and 403 by these words; WebSockets get the same response."""
    require_ray_since(TOKEN_MODE_SINCE, "RAY_AUTH_MODE=token")
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    for path, more in (("", {}), ("x/logs/tail", {**upgrade, "Sec-WebSocket-Key": "x" * 22 + "=="})):
        request = urllib.request.Request(f"{token_head.url}/api/jobs/{path}", headers=headers | more)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
        with caught.value as answer:
            assert (answer.code, "authentication token" in answer.read().decode()) == (status, True)


@pytest.mark.timeout(900)
def test_a_head_behind_an_https_proxy_with_a_prefix_and_a_private_authority(
    token_head: RayHead, connection: Any, private_ca: PrivateCA
) -> None:
    """The proxy requires and removes a login and a cookie, so the head's token is sent in Ray's second header."""
    basic = "Basic " + base64.b64encode(b"airflow:proxy-word").decode()
    demanded = {"authorization": basic, "cookie": "session=cookie-1"}
    tls = private_ca.server_context(require_client_cert=True)
    with ReverseProxy(token_head.host, token_head.port, "/team/ray", tls=tls, headers=demanded) as proxy:
        fields = {
            "login": "airflow",
            "password": "proxy-word",
            "extra": {
                "token": TOKEN,
                "cookies": {"session": "cookie-1"},
                "verify": str(private_ca.ca_file),
                "client_cert": str(private_ca.client_cert),
                "client_key": str(private_ca.client_key),
            },
        }
        run_a_job(connection(proxy.url, **fields), token_head)
        kinds = {(one.method, one.upstream_status) for one in proxy.requests}
        assert ("GET", 101) in kinds, "the WebSocket"
        assert {one.path.startswith("/team/ray/api/") for one in proxy.requests} == {True}

        with pytest.raises(exceptions.RayAuthError, match="HTTP 401: the credentials were refused; check the token, l"):
            connection(proxy.url, **fields | {"login": "", "password": ""}).get_version()
        with pytest.raises(exceptions.RayProtocolError, match="no such route"):
            connection(proxy.url.removesuffix("/team/ray"), **fields).get_version()
        untrusted = {**fields, "extra": {**fields["extra"], "verify": True}}
        with pytest.raises(exceptions.RayTLSError, match="the TLS handshake failed"):
            connection(proxy.url, **untrusted).get_version()


def test_a_list_of_words_reaches_the_job_word_by_word(ray_head: RayHead, connection: Any, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    words = ["a b", f"; touch {trap}", "$(touch x)", "it's", '"', "*", "", "ä\\n", "`id`"]
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    hook = connection(**ray_head.connection())
    submission_id = hook.submit_job(entrypoint=["python", "-c", code, *words])
    ray_head.wait_job(submission_id, until={"SUCCEEDED"})
    assert json.loads(ray_head.logs(submission_id).strip().splitlines()[-1]) == words
    assert not trap.exists()


_RESOLVE = """
import sys
from types import SimpleNamespace
from airflow_provider_rayjobs.cluster.connection import read_connection
none = dict.fromkeys(("port", "schema", "login", "password", "extra"))
connection = SimpleNamespace(conn_type="ray_jobs", host=sys.argv[1], **none)
print(read_connection("x", connection, {} if len(sys.argv) < 3 else {"RAY_ADDRESS": sys.argv[2]}).address)
"""

#: Errors of a busy machine: the head's server for Ray Client sometimes misses its own deadline, or the process that it
#: has just started for this client has already ended.
_TRANSIENT_ERRORS_OF_RAY = ("Starting Ray client server failed", "psutil.ZombieProcess")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["client", "gcs", "auto"])
def test_rays_own_addresses_are_resolved_where_ray_is_installed(ray_head: RayHead, kind: str, tmp_path: Path) -> None:
    python = ray_head.ray_bin.parent / "python"
    environ = environment.for_programs() | ray_head.client_environment
    # Ray's Python must find the tested package, but no other packages of this environment.
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "airflow_provider_rayjobs").symlink_to(Path(airflow_provider_rayjobs.__file__).parent)
    environ["PYTHONPATH"] = str(tmp_path / "path")
    environ["RAY_ADDRESS"] = "http://elsewhere:1"  # the connection's host takes precedence
    # In this folder, Ray looks for the current head of the machine.
    environ["RAY_TMPDIR"] = str(tmp_path)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{ray_head.ports['--port']}")
    arguments = {
        "client": [f"ray://127.0.0.1:{ray_head.ports['--ray-client-server-port']}"],
        "gcs": ["", f"127.0.0.1:{ray_head.ports['--port']}"],
        "auto": ["auto"],
    }[kind]
    for _ in range(3):
        done = subprocess.run(
            [python, "-c", _RESOLVE, *arguments], env=environ, capture_output=True, text=True, timeout=100, check=False
        )
        if not any(error in done.stderr for error in _TRANSIENT_ERRORS_OF_RAY):
            break
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ray_head.url
