"""The same submission through Ray's SDK and through the hook gives the same job, or the same error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.parity.cases import CASES
from tests.parity.folders import TOO_LARGE

if TYPE_CHECKING:
    from tests.parity.case import Case
    from tests.parity.stage import Made, Stage


def end_of(made: Made, wanted: str) -> str:
    """
    Return the result of a submission in the form of ``Case.ends``.

    :param wanted: the expected result: if the error is an instance of its class, this class is returned.
    """
    families = made.answer.get("error")
    if families is None:
        return str(made.job["status"])
    name = wanted.rpartition(":")[2]
    error = name if name in families else families[0]
    return f"sent:{error}" if made.posted else str(error)


def differences(sdk: dict[str, Any], hook: dict[str, Any]) -> dict[str, Any]:
    """Return the parts in which two jobs differ."""
    return {name: (sdk.get(name), hook.get(name)) for name in sdk | hook if sdk.get(name) != hook.get(name)}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_submission(stage: Stage, case: Case) -> None:
    sdk, hook = stage.made(case, "sdk"), stage.made(case, "hook")
    wanted = case.hook_ends or case.ends
    assert end_of(sdk, case.ends) == case.ends, (sdk.answer, sdk.job)
    assert end_of(hook, wanted) == wanted, (hook.answer, hook.job)
    if not case.hook_ends:
        assert differences(sdk.job, hook.job) == {}


def test_submissions_that_only_the_hook_supports(stage: Stage) -> None:
    """Ray's client fails here, so the results can't be compared."""
    module, large = CASES["py_modules_file"], CASES["working_dir_too_large"]
    if not stage.has(module, large):
        pytest.skip("the cases are not selected")
    assert stage.made(module, "hook").job["imported"] == {"parity_one": "one file"}
    ((name, kind, _, size, _),) = stage.made(large, "hook").job["folder"]
    assert (name, kind, size) == ("zeros.bin", "file", TOO_LARGE)
