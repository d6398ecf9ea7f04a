"""One submission of the suite, and how it is made; read by both Pythons, so it needs neither Ray nor Airflow."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

#: No node of the head has it: a job that asks for it stays PENDING, and Ray never prepares its environment.
HOLD = {"parity_nowhere": 1.0}


@dataclass(frozen=True)
class Here:
    """
    Where a submission is made.

    :param folder: the files of ``folders``; the current folder of both sides.
    :param address: the cluster, by a way that is this side's own.
    :param submission_id: for the job.
    """

    folder: Path
    address: str
    submission_id: str

    def __truediv__(self, name: str) -> str:
        return str(self.folder / name)

    def probe(self, *modules: str) -> str:
        """Return the entrypoint that reports what a job sees."""
        return " ".join(["python", "-B", self / "probe.py", *modules])


@dataclass(frozen=True)
class Case:
    """
    A submission.

    :param job: its arguments; the id is added unless they hold one.
    :param ends: what Ray's SDK must make of it: the job's status at the end, or the name of the built-in error that
        comes before anything is sent, or after ``sent:``.
    :param client: arguments of ``JobSubmissionClient``; for the hook they stand in the connection.
    :param environ: environment variables of the caller.
    :param hook_ends: what the hook makes of it, where that is something else; ``docs/parity.md`` says why.
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
    """What submits: Ray's ``JobSubmissionClient`` or a hook."""

    submit_job: Callable[..., str]


def submit(case: Case, here: Here, connect: Callable[..., Client]) -> str:
    """Make a submission; return its id."""
    with _environment(case.environ(here)):
        return connect(**case.client_arguments(here)).submit_job(**case.arguments(here))


def answer(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call gave: its value, or the built-in classes of its error, the nearest first."""
    try:
        return {"value": call()}
    except Exception as e:  # noqa: BLE001  which one it is is what the suite looks at
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
