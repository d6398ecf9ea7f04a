"""Submission ids: which ones Ray can handle, and a random one."""

from __future__ import annotations

import re
import secrets
import string


def new_submission_id() -> str:
    """Return a random submission id of the form that Ray gives when the client names none."""
    letters = string.ascii_letters + string.digits
    return "raysubmit_" + "".join(secrets.choice(letters) for _ in range(16))


#: Ids outside this set give a job that no route can reach again.
SUBMISSION_ID_PATTERN = re.compile(r"[A-Za-z0-9_.-]+")

#: Ray names a log file after the id, and file systems take no longer name.
LONGEST_SUBMISSION_ID = 240


def names_no_job(submission_id: object) -> bool:
    """Whether an id is missing: None, or what a template makes of None, or nothing."""
    return submission_id is None or (isinstance(submission_id, str) and submission_id.strip() in ("", "None"))


def is_submission_id(value: object) -> bool:
    """Whether a cluster may call a job so: what :func:`check_submission_id` takes."""
    try:
        check_submission_id(value)
    except (TypeError, ValueError):
        return False
    return True


def check_submission_id(submission_id: object) -> str:
    """
    Return the id when Ray can route it.

    :raises ValueError: it holds other characters than letters, digits, ``_``, ``.`` and ``-``.
    :raises TypeError: it is no text.
    """
    if not isinstance(submission_id, str):
        raise TypeError(f"submission_id must be a text, not {submission_id!r}")
    if not SUBMISSION_ID_PATTERN.fullmatch(submission_id) or submission_id in (".", ".."):
        raise ValueError(
            f"submission_id {submission_id!r} can't be used: Ray finds a job again only when its id is made of "
            "letters, digits, '_', '.' and '-'"
        )
    if len(submission_id) > LONGEST_SUBMISSION_ID:
        raise ValueError(
            f"submission_id has {len(submission_id)} characters; Ray can't run jobs with more than "
            f"{LONGEST_SUBMISSION_ID}: {submission_id!r}"
        )
    return submission_id
