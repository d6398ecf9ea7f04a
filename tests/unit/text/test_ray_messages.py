"""Ray's messages, shortened to what tells."""

from __future__ import annotations

import pytest

from airflow_provider_rayjobs.text.ray_messages import first_and_last_line

SAID = "Job entrypoint command failed with exit code 1"


@pytest.mark.parametrize(
    ("message", "short"),
    [
        ("", ""),
        ("\n \n", ""),
        (" one line \n", "one line"),
        (f"{SAID}, last available logs (truncated to 20,000 chars):\n\n  one\n two \n", f"{SAID} … two"),
        ("first\r\nlast", "first … last"),
    ],
)
def test_the_first_and_the_last_line_are_kept(message: str, short: str) -> None:
    assert first_and_last_line(message) == short
