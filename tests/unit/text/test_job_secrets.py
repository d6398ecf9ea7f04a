"""What is secret in a job is masked in that job's text, in each of its forms, and within bounds."""

from __future__ import annotations

import json
import time
from urllib.parse import quote, quote_plus

import pytest

from airflow_provider_rayjobs.text.job_secrets import MOST_CHARACTERS, MOST_TEXTS, WITHHELD, JobSecrets

VALUE = 'pa"ss\\w/ örd-1'


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        json.dumps(VALUE),
        json.dumps(VALUE, ensure_ascii=False),
        repr(VALUE),
        f"x{VALUE}y",
        quote(VALUE),
        quote(VALUE, safe=""),
        quote_plus(VALUE),
    ],
    ids=["plain", "json", "json in utf-8", "repr", "within", "path of a URL", "login of a URL", "query of a URL"],
)
def test_a_value_is_masked_as_it_is_and_escaped(form: str) -> None:
    shown = JobSecrets([VALUE]).public(f"before {form} after")
    assert "***" in shown
    assert "rd-1" not in shown
    assert "ss" not in shown


def test_a_value_of_several_lines_is_masked_line_by_line() -> None:
    key = "{\n-----BEGIN 4f6a-----\nMIIE4f6aPRIVATE==\n}\n"
    secrets = JobSecrets([key])
    assert [secrets.public(line) for line in key.splitlines()] == ["{", "***", "***", "}"]
    assert secrets.public(f"one\n{key}two") == "one\n***two"
    assert "4f6a" not in secrets.public(json.dumps({"key": key}))


def test_short_texts_are_no_secrets() -> None:
    assert JobSecrets(["a", "1234", ""]).public("a 1234 text") == "a 1234 text"


def test_the_longest_secret_counts() -> None:
    assert JobSecrets(["secret", "secret-and-more"]).public("secret-and-more secret") == "*** ***"


def test_credentials_in_urls_of_the_runtime_env_are_secret() -> None:
    secrets = JobSecrets(
        runtime_env={
            "pip": {"pip_install_options": ["--index-url=https://bob:hunter2secret@127.0.0.1/simple"]},
            "working_dir": "https://store/x.zip?sig=abcdefghijklmnopqrst&v=1",
            "py_modules": ["https://ghp_token@host/m.zip"],
            "env_vars": {"DSN": "postgres://me:dsn%20pass@db/x?application_name=reports-of-today-and-more"},
            "conda": {"channels": ["https://conda.host/t/tk-1234/get"]},
            "image_uri": "https://me:pa/ss@h/x",
            "uv": ['--index https://me:qu"ote@h/x'],
        }
    )
    for secret in (
        "tk-1234",
        "me:pa/ss",
        "pa/ss",
        'qu"ote',
        "hunter2secret",
        "bob:hunter2secret",
        "abcdefghijklmnopqrst",
        "ghp_token",
        "dsn%20pass",
        "dsn pass",
    ):
        assert secret not in secrets.public(f"failed: {secret}!")
    assert secrets.public("127.0.0.1 store v=1 db reports-of-today-and-more") == (
        "127.0.0.1 store v=1 db reports-of-today-and-more"
    )


def test_a_job_with_too_many_secrets_shows_nothing_and_takes_no_time() -> None:
    began = time.process_time()
    for values in ([f"secret-{n:06}" for n in range(100_000)], ["x" * (MOST_CHARACTERS + 1)]):
        secrets = JobSecrets(values)
        assert secrets.public("anything") == WITHHELD
        assert secrets.public("") == ""
    many = JobSecrets(["\n".join(f"line-{n:09}" for n in range(MOST_TEXTS - 10))])
    text = "nothing of it\n" * 1500
    assert many.public(text) == text
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("values", "runtime_env"),
    [
        ((), {"working_dir": "a" * 120_000}),
        ((), {"env_vars": {"A": "ab" * 64_000}}),
        ((), {"env_vars": {"A": "://b@" * 25_000}}),
        ((), {"env_vars": {"A": "://a:b" * 20_000 + "@"}}),
        (["\n" * 250_000], None),
        (["\n" * 2_000_000], None),
    ],
)
def test_no_value_takes_long_to_be_looked_through(values: list[str], runtime_env: object) -> None:
    began = time.process_time()
    JobSecrets(values, runtime_env).public("text")
    assert time.process_time() - began < 0.2


def test_secrets_that_nearly_match_take_no_time_and_hide_all_text() -> None:
    secrets = JobSecrets(["\n".join(f"{'a' * 40}{n:03}{'a' * 40}" for n in range(900))])
    assert secrets.public("a short text") == "a short text"
    began = time.process_time()
    assert secrets.public("a" * 80_000) == WITHHELD
    assert secrets.public("a short text") == WITHHELD
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize("runtime_env", [None, 1, "http://[", ["http://a:secret@[x"], {"a": {"b": [None]}}])
def test_any_runtime_env_can_be_looked_at(runtime_env: object) -> None:
    assert JobSecrets(runtime_env=runtime_env).public("text") == "text"
