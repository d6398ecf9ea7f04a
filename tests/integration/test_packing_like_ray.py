"""Packages of random folders and patterns are the same as those of Ray's own code."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.packaging.package import pack_folder
from airflow_provider_rayjobs.packaging.spool import spooled
from tests.support import environment
from tests.support.ray_head import CLIENT_FOLLOWED, require_ray_since

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("packing_like_ray")]

WHY = "compared with the newest version of Ray's client"

#: Packs each folder from stdin with Ray's client, and prints the names, modes and contents in the zip file.
RAY = """
import json, sys, zipfile
from pathlib import Path
from ray._private.runtime_env.packaging import create_package
for line in sys.stdin:
    folder, excludes, parent = json.loads(line)
    target = Path(folder + ".zip")
    create_package(folder, target, include_gitignore=True, include_parent_dir=parent, excludes=excludes)
    with zipfile.ZipFile(target) as archive:
        found = {i.filename: [i.external_attr >> 16, archive.read(i).decode("latin1")] for i in archive.infolist()}
    print(json.dumps(found), flush=True)
"""

WORDS = ["a", "b", "data", "lib", "x.py", "y.log", "ü.txt", ".env"]
#: Without patterns that differ on purpose: `!name` for a folder includes its contents again, as in git (but not with
#: the older pathspec inside Ray); and patterns are not applied to the package's own folder (with Ray, `*` or `.*`
#: together with a `!` excludes everything).
PATTERNS = ["data/", "/data", "*.log", "lib/*", "!lib/x.py", "**/x.py", "a/b", "lib/**", "b/", "# a", "a*", "[ab]"]


def make(folder: Path, chance: random.Random, depth: int = 0) -> None:
    folder.mkdir()
    for name in chance.sample(WORDS, chance.randint(0, 5)):
        path = folder / name
        if depth < 3 and chance.random() < 0.45:
            make(path, chance, depth + 1)
        elif chance.random() < 0.08:
            path.symlink_to(chance.choice(["/etc/hostname", "nowhere", "x.py", "/usr/share/zoneinfo/Arctic"]))
        else:
            path.write_text(name)
            path.chmod(chance.choice([0o644, 0o755, 0o600]))
    for name in (".gitignore", ".rayignore"):
        if chance.random() < 0.25:
            (folder / name).write_text("\n".join(chance.sample(PATTERNS, chance.randint(1, 4))) + "\n")


def ours(folder: str, excludes: list[str], inside: bool) -> dict[str, list[object]]:
    package = pack_folder(folder, excludes, [".gitignore", ".rayignore"], inside=inside)
    with spooled(package, 10**8) as spool, zipfile.ZipFile(spool._file) as archive:
        return {i.filename: [i.external_attr >> 16, archive.read(i).decode("latin1")] for i in archive.infolist()}


@pytest.fixture(scope="module")
def ray_packs() -> Iterator[subprocess.Popen[str]]:
    python = require_ray_since(CLIENT_FOLLOWED, WHY).parent / "python"
    process = subprocess.Popen(
        [python, "-c", RAY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment.for_programs(),
    )
    yield process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(30)


def by_ray(process: subprocess.Popen[str], folder: str, excludes: list[str], inside: bool) -> dict[str, list[object]]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([folder, excludes, inside]) + "\n")
    process.stdin.flush()
    found: dict[str, list[object]] = json.loads(process.stdout.readline())
    return found


def test_random_trees(ray_packs: subprocess.Popen[str], tmp_path: Path) -> None:
    different = []
    for seed in range(150):
        chance = random.Random(seed)
        folder = tmp_path / "tree"
        make(folder, chance)
        excludes, inside = chance.sample(PATTERNS, chance.randint(0, 3)), chance.random() < 0.3
        wanted, found = by_ray(ray_packs, str(folder), excludes, inside), ours(str(folder), excludes, inside)
        (tmp_path / "tree.zip").unlink()
        for entry in (
            wanted,
            found,
        ):  # Ray ignores modes of folders, and needs no entry for the package itself
            entry.pop("./", None)
            entry.pop("tree/", None)
            entry.update({name: [0, ""] for name in entry if name.endswith("/")})
        if wanted != found:
            different.append((seed, excludes, sorted(set(wanted) ^ set(found)) or "contents"))
        shutil.rmtree(folder)
    assert not different
