"""Tell whether this Python can run the other tools; in a syntax that any Python 3 understands."""

import importlib.util
import sys

OLDEST = (3, 11)


def problem() -> str:
    """Return what is wrong with this Python, and the remedy; empty when all is well."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    this = f"Python {version} ({sys.executable})"
    other = "name another Python, such as: make PYTHON=python3.12 <target>"
    if sys.version_info < OLDEST:
        return f"This is {this}, and {OLDEST[0]}.{OLDEST[1]} or newer is needed.\nIf it is installed, {other}"
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        return (
            f"{this} comes without its venv module.\n"
            f"On Debian and Ubuntu: apt install python{version}-venv\nOtherwise {other}"
        )
    return ""


if __name__ == "__main__":
    sys.exit(problem() or 0)
