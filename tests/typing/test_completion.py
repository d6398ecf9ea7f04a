"""An editor completes the arguments of ``@ray_job``: asked of pyright's language server, as an editor asks it."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any, get_overloads

import pytest

from airflow_provider_rayjobs.decorators import ray_job
from tests.typing.conftest import LANGUAGE_SERVER, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = (ROOT / "tests/typing/completed.py").as_uri()
BEGIN = "from airflow_provider_rayjobs.decorators import ray_job\n"


class Editor:
    """Speaks the language server protocol over a process's input and output."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        self._id = 0

    def _send(self, **message: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._input.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._input.flush()

    def _receive(self) -> dict[str, Any]:
        length = 0
        while line := self._output.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        message: dict[str, Any] = json.loads(self._output.read(length))
        return message

    def tell(self, method: str, **params: Any) -> None:
        self._send(method=method, params=params)

    def ask(self, method: str, **params: Any) -> Any:
        self._id += 1
        self._send(id=self._id, method=method, params=params)
        while "method" in (message := self._receive()) or message["id"] != self._id:
            if "id" in message:  # a question of the server: this editor has no settings of its own
                self._send(id=message["id"], result=[{} for _ in message["params"].get("items", [])])
        return message["result"]

    def labels_at_end(self, text: str) -> set[str]:
        """Return what is offered at the end of a file with this text."""
        opened = {"uri": FILE, "languageId": "python", "version": 1, "text": text}
        self.tell("textDocument/didOpen", textDocument=opened)
        lines = text.split("\n")
        position = {"line": len(lines) - 1, "character": len(lines[-1])}
        found = self.ask("textDocument/completion", textDocument={"uri": FILE}, position=position)
        self.tell("textDocument/didClose", textDocument={"uri": FILE})
        return {item["label"] for item in found["items"]}


@contextmanager
def _editor() -> Iterator[Editor]:
    with subprocess.Popen([LANGUAGE_SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        editor = Editor(process)
        folders = [{"uri": ROOT.as_uri(), "name": "project"}]
        editor.ask("initialize", processId=None, rootUri=ROOT.as_uri(), workspaceFolders=folders, capabilities={})
        editor.tell("initialized")
        yield editor
        editor.ask("shutdown")
        editor.tell("exit")


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    with _editor() as opened:
        yield opened


def test_all_arguments_of_the_operator_are_offered(editor: Editor) -> None:
    offered = {label[:-1] for label in editor.labels_at_end(f"{BEGIN}\n@ray_job(") if label.endswith("=")}
    assert offered == set(signature(get_overloads(ray_job)[1]).parameters)


def test_the_arguments_of_the_function_are_offered(editor: Editor) -> None:
    text = f"{BEGIN}\n@ray_job(retries=2)\ndef work(shard: int, *, how: str = '') -> int:\n    return shard\n\nwork("
    assert {"shard=", "how="} <= editor.labels_at_end(text)
