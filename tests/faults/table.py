"""The table of results, printed at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.faults.bench import Facts

_TITLES = ("step", "fault", "mode", "tries", "jobs", "drivers", "to their end", "intended", "orphans", "s", "verdict")


@dataclass(frozen=True)
class Line:
    """The result of one case."""

    step: str
    fault: str
    mode: str
    intended: int
    facts: Facts | None
    seconds: float

    @property
    def verdict(self) -> str:
        """Ok or FAILED; the test has the details."""
        return "ok" if self.facts is not None else "FAILED"

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        facts = self.facts
        counts: tuple[str, ...] = ("?",) * 6
        if facts is not None:
            numbers = (facts.tries, facts.jobs, facts.starts, facts.ends, self.intended, facts.orphans)
            counts = tuple(map(str, numbers))
        return (self.step, self.fault, self.mode, *counts, f"{self.seconds:.0f}", self.verdict)


def render(lines: Iterable[Line], seconds: float, leftovers: int | None) -> str:
    """Return the table as text, with totals.

    :param seconds: duration of all cases.
    :param leftovers: how many jobs were alive at the end; None if not checked.
    """
    played = list(lines)
    rows = [_TITLES, *sorted(line.cells() for line in played)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    text.insert(1, "  ".join("-" * width for width in widths))
    done = [line for line in played if line.facts is not None]
    known = [line.facts for line in done if line.facts is not None]
    duplicates = sum(max(0, line.facts.ends - line.intended) for line in done if line.facts is not None)
    lost = sum(max(0, line.intended - line.facts.ends) for line in done if line.facts is not None)
    text.append("")
    text.append(
        f"{len(played)} cases, {len(played) - len(done)} failed; {sum(facts.tries for facts in known)} tries, "
        f"{sum(facts.jobs for facts in known)} Ray jobs, {sum(line.intended for line in done)} intended runs: "
        f"{duplicates} duplicates, {lost} lost, {sum(facts.orphans for facts in known)} orphans, "
        f"{'?' if leftovers is None else leftovers} jobs left running at the end; {seconds:.0f} s"
    )
    return "\n".join(text) + "\n"
