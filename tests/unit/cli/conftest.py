"""The fixture that runs a command in this process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs import __main__
from tests.support.command_line import Done, arguments, environment

if TYPE_CHECKING:
    from tests.support.command_line import Run
    from tests.support.scripted_server import ScriptedRay


@pytest.fixture
def run(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, on the scripted server."""
    for name, value in environment(scripted_ray.url).items():
        monkeypatch.setenv(name, value)

    def run(verb: str, *args: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["/x/airflow_provider_rayjobs/__main__.py", *arguments(verb, *args)])
        code: object = 0
        try:
            __main__.main()
        except SystemExit as e:
            code = e.code
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert isinstance(code, int)
        return Done(code, out, err)

    return run
