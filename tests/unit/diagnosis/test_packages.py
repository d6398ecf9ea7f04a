"""What to do when a node can't read a package: known from the exception in Ray's message."""

from __future__ import annotations

import time

import pytest

from airflow_provider_rayjobs.diagnosis.packages import remedy_for

SETUP = "runtime_env setup failed: Failed to set up runtime environment.\nTraceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        # Ray 2.60, 2.40 and 2.8.
        ("ImportError: You must `pip install smart_open[s3]` to fetch URIs in s3 bucket.", "smart_open[s3] into the"),
        ("ImportError: You must `pip install smart_open` and `pip install boto3` to fetch", "smart_open[s3] into the"),
        ("ImportError: You must `pip install smart_open[gcs]` to fetch URIs in Google", "smart_open[gcs] into the"),
        (
            "ImportError: You must `pip install smart_open` and `pip install google-cloud-storage` to fetch URIs",
            "smart_open[gcs] into the image",
        ),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/mnt/x/_ray_pkg_a.zip'", "at the same path"),
        (
            "OSError: unable to access bucket: 'b' key: '_ray_pkg_a.zip' version: None error: An error occurred "
            "(NoSuchKey) when calling the GetObject operation: The specified key does not exist.",
            "let no rule delete what is newer than 30 days",
        ),
        (
            "OSError: unable to access bucket: 'b' key: '_ray_pkg_a.zip' version: None error: An error occurred "
            "(AccessDenied) when calling the GetObject operation: Access Denied",
            "the right to read",
        ),
        ("google.api_core.exceptions.Forbidden: 403 GET https://h/b/o/_ray_pkg_a.zip", "the right to read"),
        ("google.api_core.exceptions.NotFound: 404 GET https://h/b/o/_ray_pkg_a.zip: Not Found", "let no rule delete"),
        ("botocore.exceptions.NoCredentialsError: Unable to locate credentials", "give all nodes the right to read"),
    ],
)
def test_the_remedy(error: str, remedy: str) -> None:
    assert remedy in remedy_for(SETUP + error)
    assert remedy_for(f"Job entrypoint command failed with exit code 1, last available logs: {error}") == ""


@pytest.mark.parametrize(
    "message",
    [
        "",
        f"{SETUP}No such file or directory: 'req.txt'",
        f"{SETUP}pip: HTTP 403 Forbidden for https://pypi.corp/simple/x",
        f"{SETUP}OSError: unable to access bucket: 'b' key: 'team.zip' error: An error occurred (NoSuchKey)",
        f"{SETUP}OSError: unable to access bucket: 'b' key: 'team.zip' error: An error occurred (AccessDenied)",
    ],
)
def test_nothing_is_said_of_other_failures(message: str) -> None:
    assert remedy_for(message) == ""


@pytest.mark.parametrize("text", ["does not exist ", "_ray_pkg_ ", "/_ray_pk", "No such file or directory: '"])
def test_a_long_message_takes_little_time(text: str) -> None:
    message = f"{SETUP}_ray_pkg_ {text * 5000}"
    began = time.process_time()
    assert remedy_for(message) == ""
    assert time.process_time() - began < 0.1
