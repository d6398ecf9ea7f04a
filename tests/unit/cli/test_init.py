"""The commands and their arguments, as Airflow's parser takes them."""

from __future__ import annotations

import os
import pty
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs import cli
from airflow_provider_rayjobs.get_provider_info import get_provider_info
from airflow_provider_rayjobs.jobs import JobStatus
from tests.support.command_line import environment, finish, start
from tests.unit.project.test_layout import loaded_after_airflow

if TYPE_CHECKING:
    from tests.support.command_line import Run
    from tests.support.scripted_server import ScriptedRay


def test_the_statuses_to_list_are_those_that_ray_has() -> None:
    assert sorted(cli.STATUSES) == sorted(JobStatus)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--metadata-json", "[]", "--", "x"], "--metadata-json: must be a JSON object"),
        (["--runtime-env-json", '{"env_vars": {"A": "s3cret"', "--", "x"], "--runtime-env-json: must be a JSON object"),
        (["--runtime-env-json", "{}", "--runtime-env", "x", "--", "x"], "can't be used together"),
        (["--runtime-env", "/no/such", "--", "x"], "the file '/no/such' can't be read: No such file"),
        (["--submission-id", "a/b", "--", "x"], "submission_id 'a/b' must contain only"),
        (["--runtime-env-json", '{"env_vars": {"A": 1}}', "--", "x"], "runtime_env['env_vars']['A'] must be a string"),
        (["--metadata-json", '{"airflow_dag_id": 1}', "--", "x"], "metadata['airflow_dag_id'] must be a string"),
        (
            ["--metadata-json", '{"airflow_dag_id": "d"}', "--", "x"],
            "keys that begin with 'airflow_' are reserved",
        ),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_arguments_are_told_and_nothing_is_sent(
    run: Run, scripted_ray: ScriptedRay, args: list[str], said: str
) -> None:
    done = run("submit", *args)
    assert done.code == 2
    assert said in done.err
    assert "s3cret" not in done.err
    assert said in done.err.splitlines()[-1]
    assert done.out == ""
    assert scripted_ray.received == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--status", "x"], "argument --status: invalid choice: 'X'"),
        (["extra", "words"], "unrecognized arguments: extra words"),
        (["--lim", "1"], "unrecognized arguments: --lim 1"),
    ],
)
def test_wrong_usage_shows_the_help_of_the_command_on_stderr(run: Run, args: list[str], said: str) -> None:
    done = run("list", *args)
    assert (done.code, done.out) == (2, "")
    first, *_, last = done.err.splitlines()
    assert first.startswith("Usage: python -m airflow_provider_rayjobs list ")
    assert last.startswith(f"python -m airflow_provider_rayjobs list: error: {said}")
    assert "Only jobs of this DAG" in done.err


def test_help_on_a_stderr_that_is_no_terminal_has_no_colours(scripted_ray: ScriptedRay) -> None:
    mine, its = pty.openpty()
    env = environment(scripted_ray.url, TERM="xterm")
    done = finish(start(scripted_ray.url, "list", "--bogus", stdout=its, env=env))
    os.close(its)
    os.close(mine)
    assert done.code == 2
    assert "Usage: python" in done.err
    assert "\x1b" not in done.err


def test_help_fits_a_terminal_of_80_columns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (group,) = cli.get_ray_jobs_cli_commands()
    for command in group.subcommands:
        done = run(command.name, "--help")
        assert (done.code, done.err) == (0, "")
        text = done.out.partition("\n\n")[2]  # argparse breaks the usage, but not within an option
        assert not [line for line in text.splitlines() if len(line) > 80]


def test_the_commands_are_light() -> None:
    assert loaded_after_airflow()["commands"] == {"airflow_provider_rayjobs.cli"}


def test_airflow_knows_the_commands() -> None:
    assert get_provider_info()["cli"] == ["airflow_provider_rayjobs.cli.get_ray_jobs_cli_commands"]
    (group,) = cli.get_ray_jobs_cli_commands()
    assert group.name == "ray-jobs"
    *of_jobs, migrate = group.subcommands
    assert [command.name for command in of_jobs] == ["submit", "list", "status", "logs", "stop", "delete", "prune"]
    assert all("130  interrupted" in command.epilog for command in of_jobs)
    assert (migrate.name, "left to do by hand" in migrate.epilog) == ("migrate", True)
