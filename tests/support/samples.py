"""The recorded answers of real heads below ``tests/samples/<Ray version>/``, one file for each."""

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
    One answer, or what came over a WebSocket.

    :param request: method and path.
    :param status: HTTP status.
    :param content_type: the one header of Ray's answers that the provider looks at.
    :param json: the body, decoded, where it is JSON.
    :param text: else the body, in lines.
    :param frames: the first and the last line of a WebSocket.
    :param close_code: with which Ray closed the WebSocket.
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
        """The body as text."""
        return "\n".join(self.text) if self.json is None else json.dumps(self.json)

    @property
    def response(self) -> Response:
        """The answer as a transport gives it to a flow."""
        return Response(self.status, self.body, "http://ray:8265", self.content_type)


def versions() -> list[str]:
    """Return the recorded versions, oldest first."""
    found = [path.name for path in SAMPLES.iterdir() if path.name[0].isdigit()]
    return sorted(found, key=number)


def number(version: str) -> tuple[int, ...]:
    """Return a version as numbers, to compare it."""
    return tuple(int(part) for part in version.split(".")[:3])


def read(version: str) -> dict[str, Sample]:
    """Return all answers of one version by name."""
    files = sorted((SAMPLES / version).glob("*.json"))
    return {path.stem: Sample(**json.loads(path.read_text())) for path in files}


def write(version: str, samples: dict[str, Sample]) -> None:
    """Put the answers of one version in place of those that are there."""
    folder = SAMPLES / version
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for name, sample in samples.items():
        values = {key: value for key, value in asdict(sample).items() if value not in (None, "", [])}
        text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n")
