"""The command line: what it asks the cluster for, what it writes where, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs import __main__, cli
from airflow_provider_rayjobs.cli.output import log
from airflow_provider_rayjobs.get_provider_info import get_provider_info
from airflow_provider_rayjobs.jobs import JobStatus
from tests.support import answers
from tests.support.command_line import MODULE, Done, arguments, environment, finish, start
from tests.unit.project.test_layout import loaded_after_airflow

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay

Run = Callable[..., Done]

ENDED = 1_700_000_000_000


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


def test_the_statuses_to_list_are_those_that_ray_has() -> None:
    assert sorted(cli.STATUSES) == sorted(JobStatus)


def test_submit_sends_what_its_options_say(run: Run, scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    text = "pip: [x]\nenv_vars: {A: b}\nworking_dir: s3://b/other.zip\n"
    (tmp_path / "env.yaml").write_text(text, encoding="utf-8-sig")
    done = run(
        "submit",
        *("--runtime-env", str(tmp_path / "env.yaml"), "--working-dir", "s3://b/code.zip"),
        *("--submission-id", "a", "--metadata-json", '{"owner": "me"}'),
        *("--entrypoint-num-cpus", "0.5", "--entrypoint-num-gpus", "1", "--entrypoint-memory", "1024"),
        *("--entrypoint-resources", '{"TPU": 1}', "--entrypoint-label-selector", '{"zone": "a"}'),
        *("--", "python", "a b.py", "--conn-id", "--", "-f"),
    )
    assert done == Done(0, "a\n", "")
    sent = scripted_ray.received_on("POST")[0].json
    assert sent.pop("metadata")["owner"] == "me"
    assert sent.pop("runtime_env") == {
        "pip": {"packages": ["x"], "pip_check": False},
        "env_vars": {"A": "b"},
        "working_dir": "s3://b/code.zip",
    }
    assert sent == {
        "entrypoint": "python 'a b.py' --conn-id -- -f",
        "submission_id": "a",
        "entrypoint_num_cpus": 0.5,
        "entrypoint_num_gpus": 1,
        "entrypoint_memory": 1024,
        "entrypoint_resources": {"TPU": 1},
        "entrypoint_label_selector": {"zone": "a"},
    }


def test_one_word_is_a_command_line(run: Run, scripted_ray: ScriptedRay) -> None:
    done = run("submit", "--", "echo $HOME | wc")
    assert done.code == 0
    sent = scripted_ray.received_on("POST")[0].json
    assert (sent["entrypoint"], sent["submission_id"] + "\n") == ("echo $HOME | wc", done.out)


def test_a_local_folder_is_uploaded(run: Run, scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    done = run("submit", "--working-dir", str(tmp_path), "--", "python", "a.py")
    assert (done.code, len(done.out.split())) == (0, 1)
    assert done.err.startswith(f"Uploading {tmp_path}: 1 files")
    assert len(scripted_ray.packages) == 1


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
    assert len(done.err.strip().splitlines()) == 1
    assert scripted_ray.received == []


@pytest.mark.parametrize("text", ["a: [s3cret", "- s3cret", "a: \x00s3cret"])
def test_a_runtime_env_file_that_is_none_is_told_without_its_content(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "env.yaml").write_text(text)
    done = run("submit", "--runtime-env", str(tmp_path / "env.yaml"), "--", "x")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("--runtime-env: ")
    assert "s3cret" not in done.err


def test_list_shows_the_newest_of_the_wanted(run: Run, scripted_ray: ScriptedRay) -> None:
    for number, status in enumerate(["FAILED", "SUCCEEDED", "SUCCEEDED", "RUNNING"]):
        task = {"airflow_dag_id": "d", "airflow_run_id": f"r{number % 2}", "airflow_task_id": "t"}
        job = scripted_ray.add_job(f"j{number}", status, start_time=ENDED + number * 1000, metadata=task)
        job.fields.update(entrypoint="echo [/b] :smile:", end_time=ENDED + 61_500)
    scripted_ray.add_job("stranger")
    scripted_ray.other_jobs = [{"type": "DRIVER", "status": "RUNNING", "job_id": "01000000"}]

    def ids(*options: str) -> list[str]:
        done = run("list", "-o", "json", *options)
        assert (done.code, done.err) == (0, "")
        return [job["submission_id"] for job in json.loads(done.out)]

    assert ids("--dag-id", "d") == ["j3", "j2", "j1", "j0"]
    assert ids("--dag-id", "d", "--task-id", "t", "--run-id", "r0") == ["j2", "j0"]
    assert ids("--status", "failed", "--status", "SUCCEEDED", "--limit", "2") == ["j2", "j1"]
    assert len(ids()) == 5
    table = run("list", "--run-id", "r1", "--limit", "1", "-o", "table")
    first, _, line = (" ".join(text.split()) for text in table.out.splitlines()[:3])
    assert first == "submission_id | status | start_time | duration | dag_id | run_id | task_id | entrypoint"
    assert line == "j3 | RUNNING | 2023-11-14T22:13:23+00:00 | 58.5 | d | r1 | t | echo [/b] :smile:"
    assert run("list", "--dag-id", "d", "--limit", "1", "-o", "plain").out.splitlines()[1].startswith("j3 ")
    assert run("list", "--dag-id", "none").out == "No data found\n"


def test_status_shows_no_secrets(run: Run, scripted_ray: ScriptedRay) -> None:
    runtime_env = {
        "env_vars": {"MY_TOKEN": "t0ken-value", "A": "an0ther-value"},
        "pip": ["--extra-index-url=https://me:passw0rd@example.com/simple", "x==1"],
        "working_dir": "https://example.com/a.zip?signature=s1gned",
    }
    scripted_ray.add_job("a", "FAILED", runtime_env=runtime_env, entrypoint="x --token t0ken-value", message="m\nn")
    for output in ("json", "yaml", "table", "plain"):
        done = run("status", "a", "-o", output)
        assert (done.code, done.err) == (0, "")
        assert not [secret for secret in ("t0ken", "an0ther", "passw0rd", "s1gned") if secret in done.out]
        assert "MY_TOKEN" in done.out
    (details,) = json.loads(run("status", "a", "-o", "json").out)
    assert (details["submission_id"], details["status"], details["message"]) == ("a", "FAILED", "m\nn")
    assert details["runtime_env"]["pip"] == ["--extra-index-url=https://***@example.com/simple", "x==1"]


def test_logs_are_written_as_they_are(run: Run, scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job("a", "RUNNING", runtime_env={"env_vars": {"MY_TOKEN": "t0ken-value"}})
    job.log = ["grüße \ud83d\ude00\n", "it is t0ken", "-value\n", "\x1b[31mred\x1b[0m\nno end"]
    done = run("logs", "a")
    assert done == Done(0, "grüße 😀\nit is ***\n\x1b[31mred\x1b[0m\nno end\n", "")


@pytest.mark.parametrize(
    ("status", "fields", "code", "said"),
    [
        ("SUCCEEDED", {}, 0, ""),
        ("FAILED", {"driver_exit_code": 3}, 1, "Ray job a ended FAILED with exit code 3\n"),
        ("FAILED", {"driver_exit_code": None, "message": "no\nenv"}, 1, "Ray job a ended FAILED: no env\n"),
        ("STOPPED", {}, 1, "Ray job a ended STOPPED: Job was intentionally stopped.\n"),
    ],
)
def test_following_ends_as_the_job_ends(
    run: Run, scripted_ray: ScriptedRay, status: str, fields: dict[str, object], code: int, said: str
) -> None:
    scripted_ray.add_job("a", status, **fields).log = ["one\n", "two\n"]
    done = run("logs", "--follow", "a")
    assert (done.code, done.out) == (code, "one\ntwo\n")
    assert done.err.endswith(said)


def test_submit_follows_to_the_end(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_reads = ("RUNNING", "SUCCEEDED")
    scripted_ray.new_job_log = ("one\n",)
    done = run("submit", "--follow", "--submission-id", "a", "--", "x")
    assert (done.code, done.out) == (0, "one\n")
    assert f"Submitted Ray job a: {scripted_ray.url}/#/jobs/a" in done.err


@pytest.mark.parametrize(("looks", "where"), [(1, ""), (2, "; its process may still run on node 127.0.0.1")])
def test_a_job_that_vanishes_is_said_to_be_gone(run: Run, scripted_ray: ScriptedRay, looks: int, where: str) -> None:
    scripted_ray.add_job("a")
    before = [answers.default()] * looks  # the second is the first of the one who follows the job
    scripted_ray.script("GET", "/api/jobs/a", *before, answers.not_found("a"), forever=True)
    done = run("logs", "--follow", "a")
    assert (done.code, done.out) == (4, "")
    assert done.err.endswith(
        f"Ray job a no longer exists: the cluster's head restarted, or the job was deleted{where}\n"
    )


def test_losing_the_cluster_while_following_says_nothing_of_the_job(
    run: Run, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"unreachable_timeout": 1}
    monkeypatch.setenv(
        "AIRFLOW_CONN_RAY_X", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": extra})
    )
    scripted_ray.add_job("a")
    scripted_ray.script("GET", "/api/jobs/a", answers.default(), answers.text(502, ""), forever=True)
    done = run("logs", "--follow", "a")
    assert done.code == 3
    assert "Lost contact with Ray job a, which may still run: " in done.err.splitlines()[-1]


@pytest.mark.parametrize("follow", [[], ["--follow"]], ids=["read", "followed"])
def test_a_log_that_cannot_be_written_is_no_success(follow: list[str], scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "SUCCEEDED").log = ["one\n", "two\n"]
    with Path("/dev/full").open("w") as full:
        done = finish(start(scripted_ray.url, "logs", *follow, "a", stdout=full))
    assert done.code == 1
    assert "No space left on device" in done.err


def test_a_folder_that_is_not_there_is_a_wrong_argument(run: Run, scripted_ray: ScriptedRay) -> None:
    done = run("submit", "--working-dir", "/no/such/folder", "--", "x")
    assert done.code == 2
    assert "/no/such/folder" in done.err
    assert scripted_ray.jobs == {}


def test_stop_waits_and_tells_the_last_status(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.stop_takes = 0.6
    scripted_ray.add_job("a")
    scripted_ray.add_job("b", "SUCCEEDED")
    assert run("stop", "a") == Done(0, "STOPPED\n", "")
    assert run("stop", "b") == Done(0, "SUCCEEDED\n", "")


def test_delete_wants_a_job_that_has_ended(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.add_job("b", "STOPPED", end_time=ENDED)
    live = run("delete", "a")
    assert (live.code, live.out) == (1, "")
    assert "only a job that has ended can be deleted; to stop it: python -m airflow_provider_rayjobs stop a" in live.err
    assert run("delete", "b") == Done(0, "", "Deleted Ray job b\n")
    assert list(scripted_ray.jobs) == ["a"]


@pytest.mark.parametrize("verb", ["status", "logs", "stop", "delete"])
def test_an_unknown_job_has_an_exit_code_of_its_own(run: Run, scripted_ray: ScriptedRay, verb: str) -> None:
    done = run(verb, "no-such")
    assert (done.code, done.out, done.err.count("\n")) == (4, "", 1)
    assert "no-such" in done.err


def test_a_token_that_is_missing_is_an_error(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.token = "secret-token"
    done = run("list")
    assert (done.code, done.out) == (1, "")
    assert "this Ray cluster requires a token; connection 'ray_x' has none" in done.err
    assert done.err.count("\n") == 1


def test_an_unreachable_cluster_has_an_exit_code_of_its_own(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.stop()
    done = run("status", "a")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)


def test_a_wrong_connection_is_the_callers_mistake(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps({"conn_type": "ray_jobs", "extra": {"verfy": True}}))
    done = run("list")
    assert done.code == 2
    assert "field 'verfy'" in done.err


def test_a_start_of_its_own_writes_nothing_else(scripted_ray: ScriptedRay) -> None:
    # Without the variable Airflow 2.11 warns in every process that imports it.
    env = environment(scripted_ray.url, AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY="True")
    assert finish(start(scripted_ray.url, "list", program=MODULE, env=env)) == Done(0, "No data found\n", "")


def test_what_others_print_is_no_result(scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(
        "import logging, os, sys\n"
        "def token():\n"
        "    print('by print')\n"
        "    os.write(1, b'by write')\n"
        "    logging.StreamHandler(sys.__stdout__).emit(logging.makeLogRecord({'msg': 'by a log'}))\n"
        "    return 'token'\n"
    )
    connection = {"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": {"token_callable": "noisy.token"}}
    env = environment(scripted_ray.url, AIRFLOW__RAY_JOBS__ALLOWED_MODULES="noisy")
    env |= {"AIRFLOW_CONN_RAY_X": json.dumps(connection), "PYTHONPATH": f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"}
    done = finish(start(scripted_ray.url, "list", env=env))
    assert (done.code, done.out) == (0, "No data found\n")
    assert all(noise in done.err for noise in ("by print", "by write", "by a log"))


def test_logging_is_as_before_afterwards(run: Run, scripted_ray: ScriptedRay) -> None:
    before = log.level, log.propagate, list(log.handlers)
    run("list")
    assert (log.level, log.propagate, list(log.handlers)) == before


def test_ctrl_c_leaves_the_job_running(scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_timeline = ((0, "RUNNING"),)
    scripted_ray.new_job_log = ("first\n",)
    process = start(scripted_ray.url, "submit", "--follow", "--submission-id", "a", "--", "x")
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1] == (
        "Ray job a was not stopped. To follow it again: python -m airflow_provider_rayjobs logs --follow a --conn-id "
        "ray_x; to stop it: python -m airflow_provider_rayjobs stop a --conn-id ray_x"
    )
    assert "Traceback" not in done.err
    assert scripted_ray.received_on("POST", ".*/stop") == []


@pytest.mark.parametrize(
    ("verb", "options"), [("logs", []), ("logs", ["--follow"]), ("list", []), ("list", ["-o", "plain"])]
)
def test_a_reader_that_has_gone_is_no_traceback(scripted_ray: ScriptedRay, verb: str, options: list[str]) -> None:
    scripted_ray.add_job("a").log = ["x" * 10_000 + "\n"] * 20
    for number in range(1000):
        scripted_ray.add_job(f"j{number}")
    reader, writer = os.pipe()
    process = start(scripted_ray.url, verb, *(["a"] if verb == "logs" else []), *options, stdout=writer)
    os.close(writer)
    assert os.read(reader, 1)
    os.close(reader)
    done = finish(process)
    assert done.code == 141
    assert "Traceback" not in done.err
    assert "BrokenPipe" not in done.err


def read_terminal(terminal: int) -> str:
    text = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # EIO: the other side has closed it
            data = b""
        if not data:
            os.close(terminal)
            return text.decode()
        text += data


def test_a_terminal_shows_how_far_an_upload_is(scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(os.urandom(21_000_000))
    mine, its = pty.openpty()
    env = environment(scripted_ray.url, TERM="xterm", COLUMNS="150")
    options = {"stderr": its, "stdout": subprocess.PIPE, "env": env}
    process = start(scripted_ray.url, "submit", "--working-dir", str(tmp_path), "--", "x", **options)
    os.close(its)
    shown = read_terminal(mine)
    done = finish(process)
    assert (done.code, len(done.out.split())) == (0, 1)
    assert f"Uploading {tmp_path}" in shown
    assert "/21.0 MB" in shown
    assert "%" not in shown.partition("Uploading")[2].partition("\n")[2]  # the lines that the bar replaces


def test_without_a_terminal_lines_tell_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(os.urandom(21_000_000))
    done = run("submit", "--working-dir", str(tmp_path), "--", "x")
    assert (done.code, len(done.out.split())) == (0, 1)
    assert [line.partition(" %")[0][-3:] for line in done.err.splitlines()[1:]] == [" 25", " 50", " 75", "100"]


def test_the_commands_are_light() -> None:
    assert loaded_after_airflow()["commands"] == {"airflow_provider_rayjobs.cli"}


def test_airflow_knows_the_commands() -> None:
    assert get_provider_info()["cli"] == ["airflow_provider_rayjobs.cli.get_ray_jobs_cli_commands"]
    (group,) = cli.get_ray_jobs_cli_commands()
    assert group.name == "ray-jobs"
    assert [command.name for command in group.subcommands] == ["submit", "list", "status", "logs", "stop", "delete"]
    assert all("130  interrupted" in command.epilog for command in group.subcommands)
