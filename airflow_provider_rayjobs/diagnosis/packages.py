"""What to do if a node can't read a package from object storage; Ray's message has its exception."""

from __future__ import annotations

import re

#: Characters of a message that are searched.
MOST_READ = 20_000

_RIGHT_TO_READ = (
    "give all nodes the right to read the connection's package_folder, for example by the role of their pods or by "
    "variables such as AWS_ACCESS_KEY_ID"
)

#: What Ray says if the set-up of a ``runtime_env`` failed (2.8 to 2.60).
_SETUP_FAILED = re.compile(r"set up runtime.env|runtime.env setup", re.IGNORECASE)

#: In the name of each package. Without it, a message may be about an author's own URI, or about pip.
_PACKAGE = "_ray_pkg_"

#: Errors of ``download_remote_uri`` in Ray's ``protocol.py``, of smart_open and of boto3, each with what to do.
_REMEDIES = (
    (
        re.compile(r"pip install (azure|adlfs)"),
        "install what the message names into the image of all nodes; runtime_env['pip'] comes too late for it",
    ),
    (
        re.compile(r"pip install smart_open\[gcs\]|google-cloud-storage"),
        "install smart_open[gcs] into the image of all nodes, for gs:// URIs; runtime_env['pip'] comes too late for it",
    ),
    (
        re.compile(r"pip install (smart_open|boto3)"),
        "install smart_open[s3] into the image of all nodes, for s3:// URIs; runtime_env['pip'] comes too late for it",
    ),
    (
        re.compile(r"No such file or directory: '[^'\n]*/_ray_pkg_"),
        "mount the connection's package_folder on all nodes, at the same path as on the Airflow workers",
    ),
    (
        # boto3 does not say for which URI.
        re.compile(r"\b(NoCredentialsError|Unable to locate credentials|DefaultCredentialsError)\b"),
        _RIGHT_TO_READ,
    ),
)

#: The same, of messages that name a package.
_REMEDIES_OF_PACKAGES = (
    (
        re.compile(
            r"\b(NoSuchKey|NoSuchBucket)\b|does not exist\b.{0,500}\b_ray_pkg_|\b_ray_pkg_.{0,500}\bNot Found\b"
        ),
        "let no rule delete what is newer than 30 days in the connection's package_folder, and check that the nodes "
        "use the same storage as the Airflow workers",
    ),
    (
        re.compile(r"\b(AccessDenied|InvalidAccessKeyId|ExpiredToken|SignatureDoesNotMatch|Forbidden)\b"),
        _RIGHT_TO_READ,
    ),
)


def remedy_for(message: str) -> str:
    """
    Return what to do about a failed set-up of a ``runtime_env``; empty if that is not known.

    :param message: Ray's message of the job.
    """
    text = message[:MOST_READ]
    if not _SETUP_FAILED.search(text):
        return ""
    remedies = (*_REMEDIES, *_REMEDIES_OF_PACKAGES) if _PACKAGE in text else _REMEDIES
    return next((remedy for error, remedy in remedies if error.search(text)), "")
