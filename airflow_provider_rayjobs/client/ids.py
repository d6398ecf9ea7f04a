"""Checks submission ids, and makes random ones."""

from __future__ import annotations

import re
import secrets
import string


def new_submission_id() -> str:
    """Return a random submission id, in the form that Ray uses for jobs submitted without one."""
    letters = string.ascii_letters + string.digits
    return "raysubmit_" + "".join(secrets.choice(letters) for _ in range(16))


#: Ray's routes can't reach jobs with other ids.
SUBMISSION_ID_PATTERN = re.compile(r"[A-Za-z0-9_.-]+")

#: Ray names a log file after the id, and file systems limit the length of names.
LONGEST_SUBMISSION_ID = 240


def is_not_given(value: object) -> bool:
    """Whether an argument is missing: None, an empty string, or ``"None"``, which templates make of None."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "None"))


def is_submission_id(value: object) -> bool:
    """Whether a value passes :func:`check_submission_id`."""
    try:
        check_submission_id(value)
    except (TypeError, ValueError):
        return False
    return True


def check_submission_id(submission_id: object) -> str:
    """
    Return the id if Ray can find its job again.

    :raises ValueError: it contains characters other than letters, digits, ``_``, ``.`` and ``-``, or is too long.
    :raises TypeError: it is not a string.
    """
    if not isinstance(submission_id, str):
        raise TypeError(f"submission_id must be a string, not {submission_id!r}")
    if not SUBMISSION_ID_PATTERN.fullmatch(submission_id) or submission_id in (".", ".."):
        raise ValueError(
            f"submission_id {submission_id!r} must contain only letters, digits, '_', '.' and '-': Ray can't find jobs "
            "with other ids again"
        )
    if len(submission_id) > LONGEST_SUBMISSION_ID:
        raise ValueError(
            f"submission_id must have at most {LONGEST_SUBMISSION_ID} characters, not {len(submission_id)}: "
            f"{submission_id!r}"
        )
    return submission_id
