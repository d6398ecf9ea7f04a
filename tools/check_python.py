"""Checks that this Python can run the other tools. Its syntax must stay valid for any Python 3."""

import importlib.util
import sys

OLDEST = (3, 11)


def problem() -> str:
    """Return what is wrong with this Python and what to do, or an empty string."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    this = f"Python {version} ({sys.executable})"
    other = "choose another Python, for example: make PYTHON=python3.12 <target>"
    if sys.version_info < OLDEST:
        return f"{this} is too old; {OLDEST[0]}.{OLDEST[1]} or later is needed.\nIf that is installed, {other}"
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        return f"{this} has no venv module.\nOn Debian and Ubuntu: apt install python{version}-venv\nOtherwise {other}"
    return ""


if __name__ == "__main__":
    sys.exit(problem() or 0)
