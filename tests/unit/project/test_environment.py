"""What children get of the environment of somebody who uses Ray, Airflow, proxies and another Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import airflow_processes, environment
from tests.support.ray_head import RayHead

ROOT = Path(__file__).parents[3]

#: Leads Ray, Airflow, Python or the tests elsewhere.
ELSEWHERE = {
    "RAY_ADDRESS": "http://elsewhere:1",
    "RAY_API_SERVER_ADDRESS": "http://elsewhere:2",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "somebodys-token",
    "RAY_AUTH_TOKEN_PATH": "/somebodys/token",
    "RAY_TMPDIR": "/nowhere",
    "AIRFLOW_HOME": "/somebodys/airflow",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://somebodys/database",
    "AIRFLOW_CONN_RAY_DEFAULT": "http://elsewhere:3",
    "_AIRFLOW_PROCESS_CONTEXT": "server",
    "VIRTUAL_ENV": "/somebodys/env",
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONSAFEPATH": "1",
    "PYTHONUSERBASE": "/nowhere",
    "PYTHONWARNINGS": "error",
}

#: Has pip and uv install something else, or to somewhere else.
OTHERWISE = {
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_TARGET": "/nowhere",
    "PIP_PREFIX": "/nowhere",
    "PIP_NO_BINARY": ":all:",
    "PIP_REQUIREMENT": "/nowhere",
    "PIP_CONSTRAINT": "/nowhere",
    "UV_PYTHON": "3.99",
    "UV_SYSTEM_PYTHON": "1",
    "UV_NO_BINARY": "1",
    "UV_EXCLUDE_NEWER": "2020-01-01",
    "UV_CONSTRAINT": "/nowhere",
    "UV_OFFICIAL": "of a later uv",
}

#: Says how registries are reached.
NETWORK = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "NO_PROXY": "example.com",
    "SSL_CERT_FILE": "/our/ca.pem",
    "REQUESTS_CA_BUNDLE": "/our/ca.pem",
    "PIP_INDEX_URL": "http://index.example",
    "PIP_EXTRA_INDEX_URL": "http://index2.example",
    "PIP_FIND_LINKS": "/wheels",
    "PIP_CERT": "/our/ca.pem",
    "PIP_CLIENT_CERT": "/our/client.pem",
    "PIP_TRUSTED_HOST": "index.example",
    "PIP_PROXY": "http://127.0.0.1:9",
    "PIP_CONFIG_FILE": "/our/pip.conf",
    "PIP_DEFAULT_TIMEOUT": "180",
    "PIP_CACHE_DIR": "/our/cache",
    "UV_DEFAULT_INDEX": "http://index.example",
    "UV_INDEX_OURS_PASSWORD": "word",
    "UV_NATIVE_TLS": "1",
    "UV_HTTP_TIMEOUT": "180",
    "UV_OFFLINE": "0",
}

OWN = {"HOME": "/home/somebody", "LANG": "de_DE.UTF-8", "USER": "somebody", "PATH": os.environ["PATH"]}

DIRTY = {**ELSEWHERE, **OTHERWISE, **NETWORK, **OWN, "PIP_USER": "1", "TMPDIR": "/not/there", "NETRC": "/our/netrc"}


def by_tools(code: str, environ: dict[str, str], *arguments: str | Path) -> Any:
    """Run code with the modules of tools/; return what it printed, from JSON."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import json, environment; {code}"
    command = [sys.executable, "-E", "-c", code, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture
def programs() -> list[dict[str, str]]:
    """What both helpers give to programs that need this machine alone."""
    code = "print(json.dumps(environment.for_programs()))"
    return [by_tools(code, DIRTY), environment.for_programs(DIRTY)]


def test_programs_get_nothing_that_leads_elsewhere(programs: list[dict[str, str]]) -> None:
    for given in programs:
        assert {name: given[name] for name in OWN} == OWN
        assert given["TMPDIR"] == "/tmp"  # short, for sockets
        assert given["NETRC"] == os.devnull
        assert given.get("NO_PROXY", "127.0.0.1,localhost") == "127.0.0.1,localhost"
        known = {*OWN, "TMPDIR", "NETRC", "NO_PROXY", "no_proxy"}
        assert {name for name in given if not name.startswith("LC_")} <= known


def test_installers_reach_registries_as_the_caller_does_and_install_as_we_say(tmp_path: Path) -> None:
    code = "import os; print(json.dumps(dict(os.environ)))"
    log = tmp_path / "log"
    by_tools(
        "import envs; from pathlib import Path; "
        "envs.run([sys.executable, '-c', sys.argv[1]], Path(sys.argv[2])); print('null')",
        DIRTY,
        f"import json; {code}",
        log,
    )
    given = json.loads(log.read_text().splitlines()[-1])
    assert {name: given.get(name) for name in NETWORK | OWN} == NETWORK | OWN
    assert not given.keys() & (ELSEWHERE | OTHERWISE).keys()
    assert given["PIP_USER"] == "0"
    assert Path(given["TMPDIR"]).is_dir()


def test_the_tests_own_process_goes_without_what_leads_elsewhere() -> None:
    given = dict(DIRTY, RAYJOBS_RAY_BIN="/our/ray", PYTHONPATH="/of/the/matrix", SSL_CERT_FILE="/our/ca.pem")
    environment.clean(given)
    assert not [name for name in given if name.startswith(("RAY_", "AIRFLOW", "PIP_", "UV_"))]
    assert not [name for name in given if name.lower().endswith("_proxy")]
    assert {"NETRC", "REQUESTS_CA_BUNDLE"}.isdisjoint(given)
    assert (given["RAYJOBS_RAY_BIN"], given["PYTHONPATH"]) == ("/our/ray", "/of/the/matrix")
    assert given["TMPDIR"] == "/tmp"


@pytest.mark.parametrize("token", ["", "of-the-head"])
def test_heads_and_airflows_of_tests_get_nothing_of_it(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in DIRTY.items():
        monkeypatch.setenv(name, value)
    head = RayHead(ray_bin=Path("/our/bin/ray"), env={"OF_THE_TEST": "1"}, token=token)
    given = head._environment()
    assert not (given.keys() - {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}) & (ELSEWHERE | OTHERWISE | NETWORK).keys()
    # Said outright: else Ray decides by a file in HOME.
    assert given["RAY_AUTH_MODE"] == ("token" if token else "disabled")
    assert given.get("RAY_AUTH_TOKEN", "") == token
    assert (given["OF_THE_TEST"], given["PATH"].split(":")[0]) == ("1", "/our/bin")
    assert not airflow_processes.clean_environment().keys() & (ELSEWHERE | OTHERWISE | NETWORK).keys()


@pytest.mark.parametrize("mode", ["token", ""])
def test_heads_ask_for_a_token_where_a_variable_says_so(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYJOBS_TEST_AUTH", mode)
    head, other = (RayHead(ray_bin=Path("/our/bin/ray")) for _ in range(2))
    assert bool(head.token) == bool(mode)
    assert head.token != other.token or not mode
    expected = {"conn_type": "ray_jobs", "host": "http://proxy:1", "extra": {"a": 1}}
    assert head.connection("http://proxy:1", extra={"a": 1}) == expected | ({"password": head.token} if mode else {})
    assert RayHead(ray_bin=Path("/our/bin/ray"), token="").token == ""


def test_a_head_is_started_from_any_folder() -> None:
    assert RayHead(ray_bin=Path(".envs/ray/bin/ray")).ray_bin == Path.cwd() / ".envs/ray/bin/ray"


def test_make_hands_on_nothing_of_another_python() -> None:
    # Instead of a Python, `make` runs what prints the environment that Python would get.
    command = ["make", "--file", str(ROOT / "Makefile"), "PYTHON=env #", "demo"]
    environ = {**DIRTY, "MAKEFLAGS": ""}
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=True)
    given = [line.partition("=")[0] for line in done.stdout.splitlines()]
    assert "RAY_ADDRESS" in given, "the environment was printed"
    assert not [name for name in given if name.startswith("PYTHON")]
