"""Text of others that is shown and stored: nothing is in it that a log, a terminal or a database trips over."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayjobs.text.safe_text import (
    for_terminal,
    is_safe,
    one_line,
    safe_text,
    safe_value,
    without_credentials,
    without_logins,
)

nasty = st.text(st.sampled_from("a \n\0\x1b\ud800\udcff\U0001f600é"), max_size=12)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain\tü 😀\n", "plain\tü 😀\n"),
        ("a\0b", r"a\x00b"),
        ("caf\udce9", r"caf\udce9"),
        ("\ud83d", r"\ud83d"),
        ("é\0\udcff", r"é\x00\udcff"),
    ],
)
def test_what_can_not_be_stored_is_shown(text: str, safe: str) -> None:
    assert safe_text(text) == safe


@given(nasty)
def test_safe_text_can_be_stored_and_stays_as_it_is(text: str) -> None:
    safe = safe_text(text)
    safe.encode()
    assert "\0" not in safe
    assert safe_text(safe) == safe


values = st.recursive(
    nasty | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(nasty, inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(values)
def test_a_safe_value_has_safe_keys_and_texts_and_the_same_form(value: Any) -> None:
    safe = safe_value(value)
    assert type(safe) is type(value)
    sent = json.dumps(safe, ensure_ascii=False)
    sent.encode()
    assert r"\u0000" not in sent
    assert safe_value(safe) == safe
    assert is_safe(safe)
    assert is_safe(value) == (json.dumps(value) == json.dumps(safe))


def test_what_is_safe_already_is_equal() -> None:
    value = {"a": [1, "x", (None, True)], "b": {"ü"}, "c": frozenset(["y"])}
    assert safe_value(value) == value
    assert safe_value({"s": {"a\0"}, "f": frozenset(["\ud800"])}) == {"s": {r"a\x00"}, "f": frozenset([r"\ud800"])}


def test_a_terminal_is_told_nothing() -> None:
    assert for_terminal("\x1b[31mred\x07\r\n\ttab\x9b0m\0") == r"\x1b[31mred\x07\x0d" + "\n\ttab" + r"\x9b0m\x00"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://bob:secret@host/x and http://host/y", "see https://***@host/x and http://host/y"),
        ("--index-url=https://token@host/simple", "--index-url=https://***@host/simple"),
        ("Could not fetch 'https://u:p@h/x', giving up", "Could not fetch 'https://***@h/x', giving up"),
        ("mail bob@example.com", "mail bob@example.com"),
        ("https://host/@scope/package", "https://host/@scope/package"),
        ("git+https://host:8443/x@v1 and http://[::1]:80/@x", "git+https://host:8443/x@v1 and http://[::1]:80/@x"),
        ("https://u:pa/ss@host/x?a=b", "https://***@host/x?a=b"),
        ("https://u:p'a@host/x", "https://***@host/x"),
        ("see http://u:p@h/http://v:q@i!", "see http://***@h/http://***@i!"),
        ("://", "://"),
    ],
)
def test_a_login_in_a_url_is_not_shown(text: str, shown: str) -> None:
    assert without_logins(text) == shown


@pytest.mark.parametrize("text", ["://a" * 30_000, "://a:b" * 20_000 + "@", "://" + "a" * 120_000, "@:/" * 40_000])
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    without_credentials(text)
    assert time.process_time() - began < 0.2


def test_logins_and_queries_are_taken_out_of_values() -> None:
    value = {"pip": ["--find-links=https://a:b@h/?sig=abc", "x"], "n": 1}
    assert without_credentials(value) == {"pip": ["--find-links=https://***@h/?***", "x"], "n": 1}


def test_a_clusters_text_becomes_one_line_that_is_cut_last() -> None:
    assert one_line(" a\n\n b\0 ") == r"a b\x00"
    assert one_line("see http://ada:secret@host/x", 16) == "see http://***@h"
    assert one_line("x" * 9, 3) == "xxx"
