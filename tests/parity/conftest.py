"""One head, both sides, and all selected submissions, which are made before the first test uses them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.parity import folders
from tests.parity.case import Case
from tests.parity.sides import HookSide, SdkSide
from tests.parity.stage import Stage
from tests.support.ray_head import RayHead, require_ray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.parity.sides import Side

HERE = Path(__file__).parent

_HEAD_ARGUMENTS = ("--num-gpus", "4", "--resources", '{"parity_widget": 8, "parity_gadget": 8}')
_HEAD_LABELS = ("--labels", "parity-zone=here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.parity)
            # The first test waits for a head and for all jobs.
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def parity_head() -> Iterator[RayHead]:
    """A head with resources of each kind."""
    # By default, Ray tries three times to set up an environment, with seconds in between.
    env = {"RUNTIME_ENV_RETRY_TIMES": "1"}
    arguments = (*_HEAD_ARGUMENTS, *_HEAD_LABELS)
    # Without a token, because some cases set headers for credentials.
    with RayHead(num_cpus=8, env=env, extra_args=arguments, ray_bin=require_ray(), token="") as head:
        yield head


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that are submitted."""
    made = tmp_path_factory.mktemp("parity") / "files"
    made.mkdir()
    folders.build(made)
    return made


@pytest.fixture(scope="session")
def sides(parity_head: RayHead, folder: Path) -> Iterator[list[Side]]:
    """Ray's SDK and the hook."""
    both: list[Side] = [SdkSide(parity_head, folder), HookSide(folder)]
    yield both
    for side in both:
        side.close()


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, parity_head: RayHead, sides: list[Side], folder: Path) -> Stage:
    """All selected submissions; their jobs have ended."""
    found = [getattr(item, "callspec", None) for item in request.session.items]
    cases = [call.params["case"] for call in found if call is not None and "case" in call.params]
    stage = Stage(parity_head, sides, folder)
    parity_head.submit("true", submission_id="parity-taken")
    stage.play([case for case in cases if isinstance(case, Case)])
    return stage
