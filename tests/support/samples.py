"""Reads and writes recorded responses of real heads: one file each, in ``tests/samples/<Ray version>/``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_rayjobs.client.exchange import Response

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


@dataclass(frozen=True)
class Sample:
    """
    One response, or the messages of a WebSocket.

    :param request: method and path.
    :param status: HTTP status.
    :param content_type: the only header of Ray's responses that the provider uses.
    :param json: the decoded body, if it is JSON.
    :param text: otherwise the lines of the body.
    :param frames: the first and the last line of a WebSocket.
    :param close_code: the code with which Ray closed the WebSocket.
    """

    request: str
    status: int
    content_type: str = ""
    json: Any = None
    text: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    close_code: int | None = None

    @property
    def body(self) -> str:
        """The body, as a string."""
        return "\n".join(self.text) if self.json is None else json.dumps(self.json)

    @property
    def response(self) -> Response:
        """The response that a transport passes to a flow."""
        return Response(self.status, self.body, "http://ray:8265", self.content_type)


def versions() -> list[str]:
    """Return the recorded versions, oldest first."""
    found = [path.name for path in SAMPLES.iterdir() if path.name[0].isdigit()]
    return sorted(found, key=number)


def number(version: str) -> tuple[int, ...]:
    """Return a version as numbers, for comparisons."""
    return tuple(int(part) for part in version.split(".")[:3])


def read(version: str) -> dict[str, Sample]:
    """Return all responses of one version, by name."""
    files = sorted((SAMPLES / version).glob("*.json"))
    return {path.stem: Sample(**json.loads(path.read_text())) for path in files}


def write(version: str, samples: dict[str, Sample]) -> None:
    """Replace the recorded responses of one version."""
    folder = SAMPLES / version
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for name, sample in samples.items():
        values = {key: value for key, value in asdict(sample).items() if value not in (None, "", [])}
        text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n")
