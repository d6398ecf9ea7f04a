"""What a process can be given; ``test_checks`` holds the messages about a submission's fields."""

from __future__ import annotations

import pytest

from airflow_provider_rayjobs.client.plain_values import LARGEST_STRING, check_env_vars, is_passable


@pytest.mark.parametrize(
    ("text", "passable"), [("a\n\t\x01é😀", True), ("", True), ("a\0", False), ("\ud800", False), ("x\udfff", False)]
)
def test_what_a_process_can_be_given_is_known(text: str, passable: bool) -> None:
    assert is_passable(text) is passable


def test_a_variable_may_be_as_long_as_linux_takes_it() -> None:
    most = LARGEST_STRING - len("A=")
    check_env_vars("env_vars", {"A": "x" * most, "B": "é" * (most // 2)})
    for value in ("hush" + "x" * (most - 3), "é" * (most // 2 + 1)):
        with pytest.raises(ValueError, match=r"^env_vars\['A'\] has 131,07[23] bytes with its name; ") as caught:
            check_env_vars("env_vars", {"A": value})
        assert "hush" not in str(caught.value)
