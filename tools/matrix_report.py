"""Prints what `make matrix` tested, from the result files of its cells: one row per cell, then each reason to skip.

python tools/matrix_report.py "build/matrix/3.1 3.12 2.40.xml" ...

A cell without results, or in which no test ran, counts as failed.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from console import ToolError, run_main

HEADERS = ("Airflow", "Python", "Ray", "tests", "passed", "failed", "skipped", "minutes")


class Cell(NamedTuple):
    """The results of one cell."""

    versions: tuple[str, str, str]
    passed: int
    failed: int
    skips: tuple[str, ...]
    seconds: float

    def row(self) -> tuple[str, ...]:
        """Return the cell as a row of the table."""
        tests = self.passed + self.failed + len(self.skips)
        if not tests:
            return (*self.versions, "not tested", *[""] * (len(HEADERS) - 4))
        return (
            *self.versions,
            *map(str, (tests, self.passed, self.failed, len(self.skips))),
            f"{self.seconds / 60:.0f}",
        )


def read(path: Path) -> Cell:
    """Read the result file of one cell.

    :param path: its name has the versions of the cell; a missing file means that the cell was not tested.
    :raises ToolError: if the file has no versions, because another kind of run wrote it.
    """
    if not path.exists():
        airflow, python, ray = path.stem.split(maxsplit=2)
        return Cell((airflow, python, ray), 0, 0, (), 0.0)
    (suite,) = ElementTree.parse(path).getroot().iter("testsuite")  # noqa: S314 - our own file
    found = {item.get("name"): item.get("value", "") for item in suite.iterfind("properties/property")}
    if not {"airflow", "python", "ray"} <= found.keys():
        raise ToolError(f"{path} does not say which versions were tested. Remove it.")
    skips = [why_skipped(skip) for skip in suite.iter("skipped")]
    failed = int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
    return Cell(
        (found["airflow"], found["python"], found["ray"]),
        int(suite.get("tests", "0")) - failed - len(skips),
        failed,
        tuple(skips),
        float(suite.get("time", "0")),
    )


def why_skipped(skip: ElementTree.Element) -> str:
    """Return why a test was skipped. For a whole module, pytest has the reason in the text, with file and line."""
    if skip.get("message") != "collection skipped":
        return skip.get("message", "")
    _, _, why = ast.literal_eval(skip.text or "")
    return str(why).removeprefix("Skipped: ")


def report(cells: list[Cell]) -> str:
    """Return the tables, in Markdown."""
    lines = [HEADERS, ("---",) * len(HEADERS), *(cell.row() for cell in cells)]
    reasons: dict[str, list[str]] = defaultdict(list)
    for cell in cells:
        for reason in sorted(set(cell.skips)):
            times = cell.skips.count(reason)
            reasons[reason].append(f"{' / '.join(cell.versions)} ({times})")
    if reasons:
        lines += [(), ("skipped because", "in (how many tests)"), ("---", "---")]
        lines += [(reason, ", ".join(where)) for reason, where in sorted(reasons.items())]
    return "\n".join(f"| {' | '.join(line)} |" if line else "" for line in lines)


def key(cell: Cell) -> list[list[int]]:
    """Return the key by which cells are sorted: their versions as numbers."""
    return [[int(number) for number in re.findall(r"\d+", text)] for text in cell.versions]


def main(arguments: list[str]) -> int:
    """Print the report; return 1 if a cell failed."""
    cells = sorted((read(Path(name)) for name in arguments), key=key)
    print(report(cells))
    return int(any(cell.failed or not cell.passed for cell in cells))


if __name__ == "__main__":
    run_main(main)
