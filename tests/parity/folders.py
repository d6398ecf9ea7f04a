"""The files that the suite's cases submit."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from typing import TYPE_CHECKING

from tests.parity import probe

if TYPE_CHECKING:
    from pathlib import Path

REQUIREMENTS = "# what the job needs\n\nrequests==2.32.0\nemoji  # smile\nrequests==2.32.0\n"
CONDA = "name: parity\nchannels: [defaults]\ndependencies:\n  - python=3.11\n  - pip:\n      - emoji\n"
#: A third-party job manager, for addresses of the form ``module://inner``.
MANAGER = """
import json, os, types

def get_job_submission_client_cluster_info(address, *, create_cluster_if_needed, **given):
    metadata = {"inner": address, "create": str(create_cluster_if_needed), "given": json.dumps(given, sort_keys=True)}
    return types.SimpleNamespace(
        address=os.environ["PARITY_ADDRESS"], cookies={"of": "manager"}, metadata=metadata, headers={"X-Parity": "here"}
    )
"""
#: One byte more than the server's limit for the body of a request.
TOO_LARGE = 100 * 2**20 + 1


def build(here: Path) -> None:
    """Create all files in an empty folder."""
    shutil.copy(probe.__file__, here / "probe.py")
    for make in (_plain, _ignored, _linked, _checkout, _clutter, _modules, _requirements, _odd):
        make(here)
    _archives(here)


def _write(path: Path, content: str | bytes = "", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def _plain(here: Path) -> None:
    root = here / "plain"
    _write(root / "main.py", "print('hello')\n")
    _write(root / "run.sh", "#!/bin/sh\necho hello\n", 0o755)
    _write(root / "private.txt", "only mine\n", 0o600)
    _write(root / "read-only.txt", "look\n", 0o444)
    _write(root / "nothing.txt")
    _write(root / ".hidden", "seen all the same\n")
    _write(root / "with space.txt", "a b\n")
    _write(root / "naïve 文件 🎈.txt", "ünïcode\n")
    _write(root / "data" / "deep" / "er" / "file.bin", bytes(range(256)) * 400)
    _write(root / "data" / "keep.txt", "kept\n")
    old = _write(root / "old.txt", "from before zip files\n")
    os.utime(old, (0, 0))
    (root / "empty" / "er").mkdir(parents=True)
    (here / "empty").mkdir()


def _ignored(here: Path) -> None:
    root = here / "ignored"
    _write(root / ".gitignore", "*.log\n!keep.log\n/build/\n# a remark\nsecret*\n\n**/cache/*.tmp\nline\\ end\n")
    _write(root / ".rayignore", "rayonly.txt\n")
    for name in ("a.log", "keep.log", "build/out.o", "src/build/kept.o", "secrets/key", "secret.txt", "rayonly.txt"):
        _write(root / name, name)
    for name in ("x/cache/a.tmp", "x/cache/b.txt", "cache/c.tmp", "line end", "main.py"):
        _write(root / name, name)
    _write(root / "sub" / ".gitignore", "*.txt\n!a.log\n/only-here\n")
    for name in ("one.txt", "a.log", "only-here", "deep/only-here", "deep/two.txt", "stays.py"):
        _write(root / "sub" / name, name)
    # All files in the folder are ignored, but not the folder itself.
    _write(root / "hollow" / "a.log", "a")
    rayish = here / "rayignored"
    _write(rayish / ".rayignore", "*.csv\n!small.csv\nmodels/\n")
    for name in ("big.csv", "small.csv", "models/m.bin", "main.py"):
        _write(rayish / name, name)


def _linked(here: Path) -> None:
    outside = _write(here / "outside" / "far.txt", "far away\n")
    root = here / "linked"
    _write(root / "target.txt", "near\n", 0o640)
    _write(root / "folder" / "inside.txt", "inside\n")
    (root / "to-file").symlink_to("target.txt")
    (root / "to-folder").symlink_to("folder")
    (root / "to-outside-file").symlink_to(outside)
    (root / "to-outside-folder").symlink_to(outside.parent)
    (root / "broken").symlink_to("nowhere")
    (here / "link-to-plain").symlink_to("plain")


def _checkout(here: Path) -> None:
    root = here / "checkout"
    _write(root / ".git" / "HEAD", "ref: refs/heads/main\n")
    _write(root / ".git" / "objects" / "aa" / "bb", b"\x00" * 100)
    _write(root / ".gitignore", "*.tmp\n")
    _write(root / "main.py", "print('hello')\n")
    _write(root / "inner" / "part.py", "part\n")
    _write(root / "inner" / "x.tmp", "ignored by the folder above only\n")
    _write(root / "module" / ".git", "gitdir: ../.git/modules/module\n")
    _write(root / "module" / "part.py", "part\n")


def _clutter(here: Path) -> None:
    root = here / "clutter"
    for name in (".venv/bin/python", "venv/lib/x.py", "__pycache__/m.pyc", "sub/__pycache__/n.pyc", "sub/n.py", "m.py"):
        _write(root / name, name)


def _modules(here: Path) -> None:
    _write(here / "modules" / "parity_a" / "__init__.py", "VALUE = 'a'\n")
    _write(here / "modules" / "parity_a" / "data" / "table.csv", "1,2\n")
    _write(here / "modules" / "parity_a" / "__pycache__" / "old.pyc", "old")
    _write(here / "modules" / "parity_a" / ".gitignore", "*.big\n")
    _write(here / "modules" / "parity_a" / "x.big", "big")
    _write(here / "modules" / "parity_b" / "__init__.py", "VALUE = 'b'\n")
    _write(here / "modules" / "parity_one.py", "VALUE = 'one file'\n")
    _write(here / "modules" / "notes.txt", "no module\n")
    info = "parity_wheel-1.0.dist-info"
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("parity_wheel.py", "VALUE = 'from a wheel'\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: parity-wheel\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    _write(here / "modules" / "parity_wheel-1.0-py3-none-any.whl", wheel.getvalue())


def _requirements(here: Path) -> None:
    _write(here / "requirements.txt", REQUIREMENTS)
    _write(here / "requirements-empty.txt", "")
    _write(here / "requirements-crlf.txt", "emoji\r\nrequests\r\n")
    _write(here / "conda.yaml", CONDA)
    _write(here / "conda.yml", "dependencies: [emoji]\n")
    _write(here / "conda-wrong.yaml", "dependencies: [unclosed\n")
    _write(here / "conda-empty.yaml", "")


def _odd(here: Path) -> None:
    _write(here / "parity_manager.py", MANAGER)
    _write(here / "script.py", "print('hello')\n")
    name = os.fsencode(here / "undecodable") + b"/caf\xe9.txt"
    (here / "undecodable").mkdir()
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644))
    _write(here / "backslash" / "a\\b.txt", "odd\n")
    _write(here / "backslash" / "main.py", "main\n")
    (here / "large").mkdir()
    with (here / "large" / "zeros.bin").open("wb") as file:
        file.truncate(TOO_LARGE)
    _write(here / "topped" / "only" / "main.py", "in one folder\n")
    _write(here / "topped" / "only" / "run.sh", "#!/bin/sh\n", 0o755)


def _archives(here: Path) -> None:
    target = here / "archives"
    target.mkdir()
    _zip(target / "plain.zip", here / "plain")
    _zip(target / "topped.zip", here / "topped")
    _zip(target / "modules.zip", here / "modules", only="parity_a")
    with tarfile.open(target / "plain.tar.gz", "w:gz") as tar:
        tar.add(here / "plain", ".")
    shutil.copy(target / "plain.tar.gz", target / "plain.tgz")
    with tarfile.open(target / "topped.tar.xz", "w:xz") as tar:
        tar.add(here / "topped" / "only", "only")
    shutil.copy(target / "plain.zip", target / "UPPER.ZIP")
    _write(target / "damaged.zip", "this is no zip file")


def _zip(target: Path, root: Path, only: str = ".") -> None:
    with zipfile.ZipFile(target, "w", strict_timestamps=False) as file:
        for path in sorted((root / only).rglob("*")):
            file.write(path, path.relative_to(root))
