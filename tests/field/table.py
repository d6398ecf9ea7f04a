"""
Writes the results of the cases as JSON and as a Markdown table.

    python -m tests.field.table

writes docs/faults.md from the results in build/field.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.field.case import MODES, MOMENTS
from tests.field.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.field.case import Case, Facts

_REPO = Path(__file__).resolve().parents[2]
RESULTS = _REPO / "build" / "field"

_PAGE = """# Fault tests

`make field` starts a distributed Airflow on one machine (two schedulers, two Celery workers, two triggerers, an API
server, PostgreSQL, Redis) and a real Ray head. It then injects one fault after the other, while tasks are in different
phases. For each case it checks

- how many drivers started, and how many ran to their end;
- which jobs are still alive a minute after the end of the DAG run;
- the state of the task, its number of tries, and the class of its error;
- whether the task's logs have each line of the driver, once in each try.

`ok` means that all of these are as expected. Exactly one driver runs to its end, whatever happens to processes and
connections. No job is left after a user or a limit has ended the task. Two drivers run if a user clears the task, or if
the head forgets its jobs. [Kill and timeouts](kill.md) and [Exactly one Ray job per intended run](exactly-once.md)
describe what is guaranteed, and what is not.

`python -m tests.field.table` writes this page.

"""

#: All faults, in order.
_KNOWN = dict.fromkeys((fault.hits, fault.name) for fault in FAULTS)


def record(folder: Path, version: str, played: Iterable[tuple[Case, Facts]]) -> None:
    """Add cases to the results of an Airflow version, or replace their earlier results; write the table.

    :param folder: for ``VERSION.json``, ``table.md``, and the logs of each case in ``VERSION/``.
    """
    (folder / version).mkdir(parents=True, exist_ok=True)
    file = folder / f"{version}.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for case, facts in played:
        (folder / version / (re.sub(r"[^\w.]+", "-", case.name) + ".log")).write_text(facts.story)
        results[case.name] = {
            "hits": case.fault.hits,
            "fault": case.fault.name,
            "moment": case.moment,
            "mode": case.mode,
            "expected": asdict(case.expected),
            "facts": asdict(facts) | {"story": ""},
            "problems": case.problems(facts),
        }
    results = {name: result for name, result in results.items() if (result["hits"], result["fault"]) in _KNOWN}
    file.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    versions = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"), reverse=True)}
    (folder / "table.md").write_text(render(versions))


def render(versions: dict[str, dict[str, Any]]) -> str:
    """Return the Markdown table.

    :param versions: the results by Airflow version.
    """
    order = list(_KNOWN)
    text = [*(f"- **{moment}**: {what}" for moment, what in MOMENTS.items()), ""]
    for version, results in versions.items():
        wrong = sum(bool(result["problems"]) for result in results.values())
        text += [f"### Airflow {version}", "", f"{len(results)} cases, {len(results) - wrong} as expected.", ""]
        text += ["| Hits | Fault | Mode | " + " | ".join(MOMENTS) + " |", "|---" * (3 + len(MOMENTS)) + "|"]
        rows: dict[tuple[str, str, str], dict[str, list[str]]] = {}
        for result in results.values():
            cells = rows.setdefault((result["hits"], result["fault"], result["mode"]), {})
            cells.setdefault(result["moment"].split()[0], []).append(_verdict(result))
        for (hits, fault, mode), cells in sorted(
            rows.items(), key=lambda row: (order.index(row[0][:2]), MODES.index(row[0][2]))
        ):
            columns = [_summary(cells.get(moment, [])) for moment in MOMENTS]
            text.append(f"| {hits} | {fault} | {mode} | " + " | ".join(columns) + " |")
        text.append("")
    return "\n".join(text)


def _verdict(result: dict[str, Any]) -> str:
    return "ok" if not result["problems"] else "**" + "; ".join(result["problems"]) + "**"


def _summary(verdicts: list[str]) -> str:
    """Return the cell of a moment, which may have several tasks."""
    if len(set(verdicts)) == 1 and len(verdicts) > 1:
        return f"{verdicts[0]} ({len(verdicts)} tasks)"
    return ", ".join(verdicts) or "-"


def _main() -> None:
    versions = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"), reverse=True)}
    (_REPO / "docs" / "faults.md").write_text(_PAGE + render(versions).replace("### ", "## "))


if __name__ == "__main__":
    _main()
