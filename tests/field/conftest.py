"""Runs the sessions of the selected cases: each one when the first test of its cases runs."""

from __future__ import annotations

import importlib.util
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.field.case import Case, Facts

HERE = Path(__file__).parent

#: The most cases of shared faults in one session.
AT_ONCE = 14

# Only the environments of `make field` have Celery.
collect_ignore = [] if importlib.util.find_spec("celery") else ["test_field.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slice", action="store_true", help="run only one case of each of the most important faults")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    own = [item for item in items if item.path.is_relative_to(HERE)]
    for item in own:
        item.add_marker(pytest.mark.field)
        # The first test of a session waits for the whole session, and the very first one also for the bench.
        item.add_marker(pytest.mark.timeout(2400))
    if config.getoption("slice", default=False):
        left_out = [item for item in own if not _case(item).in_slice]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _case(item: pytest.Item) -> Case:
    case: Case = item.callspec.params["case"]  # type: ignore[attr-defined]
    return case


def sessions_of(cases: list[Case]) -> list[list[Case]]:
    """Group the cases that can run at the same time: those of one fault, or of several shared ones."""
    alone: dict[str, list[Case]] = {}
    shared: list[Case] = []
    for case in cases:
        if case.fault.shared:
            shared.append(case)
        else:
            alone.setdefault(f"{case.fault.hits}: {case.fault.name}", []).append(case)
    packed = [shared[at : at + AT_ONCE] for at in range(0, len(shared), AT_ONCE)]
    return [*packed, *alone.values()]


@pytest.fixture(scope="session")
def facts_of(request: pytest.FixtureRequest) -> Iterator[Callable[[Case], Facts]]:
    """A function that returns the results of a case, and runs its session if needed."""
    from tests.field import session, table
    from tests.field.bench import Bench, new_folder

    cases = [_case(item) for item in request.session.items if item.path.is_relative_to(HERE)]
    sessions = sessions_of(cases)
    known: dict[str, Facts] = {}
    version = metadata.version("apache-airflow")

    def say(text: str) -> None:
        print(f"\n{time.strftime('%H:%M:%S')} {text}", flush=True)

    with new_folder() as folder, Bench(folder) as bench:
        say(f"the bench is up after {bench.seconds:.0f} s")

        def facts(case: Case) -> Facts:
            if case.name not in known:
                number, chosen = next((n, each) for n, each in enumerate(sessions) if case in each)
                begun = time.monotonic()
                known.update(session.play(bench, chosen, f"s{number}"))
                table.record(table.RESULTS, version, [(each, known[each.name]) for each in chosen])
                names = dict.fromkeys(f"{each.fault.hits}: {each.fault.name}" for each in chosen)
                say(f"{'; '.join(names)}: {len(chosen)} cases in {time.monotonic() - begun:.0f} s")
            return known[case.name]

        yield facts
