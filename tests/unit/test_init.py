"""The package itself, which every import of it runs."""

from __future__ import annotations

import re

from airflow_provider_rayjobs import __version__
from tests.unit.project.test_layout import PACKAGE, measured


def test_the_package_loads_nothing_else() -> None:
    assert measured("", {"package": ("import __future__", f"import {PACKAGE}")})["package"] == {PACKAGE}


def test_the_version_is_three_numbers_and_perhaps_a_pre_release() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", __version__)
