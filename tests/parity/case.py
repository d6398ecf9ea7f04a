"""One submission of the suite. Both Pythons import this module, so it needs neither Ray nor Airflow."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

#: No node of the head has this resource: a job that requests it stays PENDING, and Ray never sets up its environment.
HOLD = {"parity_nowhere": 1.0}


@dataclass(frozen=True)
class Here:
    """
    The environment of a submission.

    :param folder: the files of ``folders``, and the working directory of both sides.
    :param address: the address of the cluster for this side.
    :param submission_id: the id of the job.
    """

    folder: Path
    address: str
    submission_id: str

    def __truediv__(self, name: str) -> str:
        return str(self.folder / name)

    def probe(self, *modules: str) -> str:
        """Return the entrypoint that prints what a job sees."""
        return " ".join(["python", "-B", self / "probe.py", *modules])


@dataclass(frozen=True)
class Case:
    """
    A submission.

    :param job: its arguments; the id is added unless they have one.
    :param ends: the result of Ray's SDK: the final status of the job, or the built-in class of the error that is raised
        before anything is sent, or, with ``sent:`` before it, afterwards.
    :param client: arguments of ``JobSubmissionClient``; for the hook they are in the connection.
    :param environ: environment variables of the caller.
    :param hook_ends: the result of the hook, if it differs; ``docs/parity.md`` says why.
    """

    name: str
    job: Callable[[Here], dict[str, Any]]
    ends: str = "SUCCEEDED"
    client: Callable[[Here], dict[str, Any]] = lambda here: {}
    environ: Callable[[Here], dict[str, str]] = lambda here: {}
    hook_ends: str = ""

    @property
    def held(self) -> bool:
        """Whether the job is never started."""
        return self.ends == "PENDING"

    def client_arguments(self, here: Here) -> dict[str, Any]:
        """Return the client's arguments."""
        return {"address": here.address, **self.client(here)}

    def arguments(self, here: Here) -> dict[str, Any]:
        """Return the arguments of ``submit_job``."""
        hold = {"entrypoint_resources": HOLD} if self.held else {}
        return {"submission_id": here.submission_id, **hold, **self.job(here)}


class Client(Protocol):
    """A client for submissions: Ray's ``JobSubmissionClient`` or a hook."""

    submit_job: Callable[..., str]


def submit(case: Case, here: Here, connect: Callable[..., Client]) -> str:
    """Make a submission; return its id."""
    with _environment(case.environ(here)):
        return connect(**case.client_arguments(here)).submit_job(**case.arguments(here))


def answer(call: Callable[[], Any]) -> dict[str, Any]:
    """Return the value of a call, or the built-in classes of its error, the most specific first."""
    try:
        return {"value": call()}
    except Exception as e:  # noqa: BLE001  the suite compares the errors
        families = [kind.__name__ for kind in type(e).__mro__ if kind.__module__ == "builtins"]
        return {"error": families, "message": f"{type(e).__name__}: {e}"}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
