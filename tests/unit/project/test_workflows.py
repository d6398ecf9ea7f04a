"""What runs on a forge with rights: fixed actions, and nothing of what others wrote in a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="an sdist has none; `make lint` runs these on the source")


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step for job in jobs for step in [*job.get("steps", []), *([job] if "uses" in job else [])]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit(workflow: Path) -> None:
    """And tells its version, which Dependabot keeps beside it."""
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    lines = re.findall(r"^\s*-?\s*uses: *(\S+)(.*)$", workflow.read_text(), re.MULTILINE)
    assert used == [action for action, _ in lines] != []
    for action, comment in lines:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action}{comment}"


def test_one_action_has_one_commit() -> None:
    used = {step["uses"] for workflow in WORKFLOWS for step in steps(workflow) if "uses" in step}
    assert len({action.partition("@")[0] for action in used}) == len(used)


def test_dependabot_keeps_them_current() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert [update["directory"] for update in updates if update["package-ecosystem"] == "github-actions"] == ["/"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_no_command_holds_what_others_wrote(workflow: Path) -> None:
    """Names of branches and tags, titles and the like reach a command by its environment only."""
    for step in steps(workflow):
        if command := step.get("run"):
            said = re.findall(r"\$\{\{\s*([^}]*?)\s*\}\}", command)
            assert all(value.startswith("matrix.") for value in said), command
            assert not re.search(r"\$\{?(GITHUB_(?!ENV|OUTPUT|PATH|STEP_SUMMARY)\w+)", command), command


def make_release(tag: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", f"PYTHON={sys.executable}", "artefact", f"ARGS={' '.join(['--release', *arguments])}"]
    environ = {**os.environ, "GITHUB_REF_NAME": tag}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "tag",
    [
        "v1$(touch${IFS}FILE)",
        "v1`touch${IFS}FILE`",
        "v1;touch${IFS}FILE",
        "v1$(shell touch FILE)",
        "v1.2.3\ntouch FILE",
        "v1.2.3'\"",
        "v1.2",
        "v\u0661.2.3",
        "main",
        "",
    ],
)
def test_a_tag_that_is_no_version_is_refused_and_not_run(tmp_path: Path, tag: str) -> None:
    file = tmp_path / "made"
    done = make_release(tag.replace("FILE", str(file)))
    assert done.returncode
    assert "is not a version such as v1.2.3." in done.stdout + done.stderr
    assert not file.exists()


@pytest.mark.parametrize("arguments", [[], ["v999.0.0"]])
def test_a_tag_of_another_version_is_refused(arguments: list[str]) -> None:
    done = make_release("v999.0.0rc1" if not arguments else "main", *arguments)
    assert done.returncode
    assert f"The tag is {(arguments or ['v999.0.0rc1'])[0]}, but pyproject.toml says " in done.stdout + done.stderr
