"""What a line of an ignore file means, held against git itself, on generated files."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.packaging.folder import find_files
from airflow_provider_rayjobs.packaging.ignore_rules import IgnoreRules, read_lines

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

NAMES = [
    "a",
    "b",
    "ab",
    "a.b",
    "ba",
    "aab",
    "a b",
    "b ",
    "]",
    "[",
    "[a]",
    "!a",
    "#a",
    "^",
    "-",
    "a-b",
    "\\",
    "1",
    "\t",
    "*",
]
PATHS = [*NAMES, "sub/a", "sub/b", "sub/ab/x", "a.d/b", "a.d/a/b", "a.d/a/a/b", "1.d/#a", "b.d/]", "b.d/a b"]

#: What patterns are made of: what people write. (Of rarer forms pathspec reads some in another way than git.)
PARTS = ["a", "b", "a", "b", "sub", ".d", "x", "*", "**", "?", "/", "/", " ", "-", "!", "^", "]", "#", "1", "."]
BRACKETS = ["[ab]", "[]a]", "[a-b]", "[a-]"]


def git(folder: Path, *arguments: str) -> set[str]:
    """Return what a command of git prints, its parts ended by NUL."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environ, check=True, capture_output=True)
    return set(map(os.fsdecode, done.stdout.split(b"\0"))) - {""}


def kept_by_git(folder: Path) -> set[str]:
    git(folder, "init", "--quiet")
    return git(folder, "ls-files", "--others", "--exclude-standard", "-z")


def write(folder: Path, paths: list[str], rules: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    (folder / ".gitignore").write_bytes(rules)


def kept(rules: IgnoreRules, paths: list[str]) -> set[str]:
    """Return the files that remain when no folder is entered that is left out."""
    ways = {path: accumulate(path.split("/"), lambda above, name: f"{above}/{name}") for path in paths}
    return {path for path, way in ways.items() if not any(map(rules.exclude, way))}


def a_pattern(chance: random.Random) -> str:
    made = "".join(chance.choice(BRACKETS if chance.random() < 0.2 else PARTS) for _ in range(chance.randint(1, 6)))
    return made.lstrip("!#")


def test_single_patterns(tmp_path: Path) -> None:
    """Each in a folder of its own, so that git is asked once."""
    chance = random.Random(7)
    rules: dict[str, tuple[str, IgnoreRules]] = {}
    refused = 0
    while len(rules) < 600:
        pattern = a_pattern(chance)
        try:
            rules[f"d{len(rules)}"] = pattern, IgnoreRules(read_lines(f"{pattern}\n".encode()))
        except ValueError:
            refused += 1
    for name, (pattern, _) in rules.items():
        write(tmp_path / name, PATHS, f"{pattern}\n".encode())
    by_git: dict[str, set[str]] = {name: set() for name in rules}
    for path in kept_by_git(tmp_path):
        by_git[path.partition("/")[0]].add(path.partition("/")[2])
    everything = {".gitignore", *PATHS}
    ours = {name: kept(rule, [*everything]) for name, (_, rule) in rules.items()}
    assert not [(rules[name][0], sorted(ours[name] ^ by_git[name])) for name in rules if ours[name] != by_git[name]]
    assert sum(files != everything for files in by_git.values()) > 100, "the patterns hardly match anything"
    assert refused < len(rules) / 4


#: Lines of which a file is made, and what may stand at their ends.
LINES = [
    "a",
    "*.b",
    "!a.b",
    "sub",
    "!a",
    "#a",
    "\\#a",
    "\\!a",
    "",
    " ",
    "a b",
    "[a]",
    "*a*",
    "!ab",
    "ba",
]
ENDS = ["\n", "\r\n", " \n", "   \r\n"]


def a_file(chance: random.Random) -> bytes:
    lines = "".join(chance.choice(LINES) + chance.choice(ENDS) for _ in range(chance.randint(1, 5)))
    mark = b"\xef\xbb\xbf" if chance.random() < 0.4 else b""
    return mark + lines.encode()[: None if chance.random() < 0.7 else -1]


def test_whole_files(tmp_path: Path) -> None:
    """With a byte order mark, with Windows' ends of lines, with blanks, and with `!`, here of files only."""
    chance = random.Random(11)
    files = [a_file(chance) for _ in range(250)]
    for number, content in enumerate(files):
        write(tmp_path / f"d{number}", NAMES, content)
    by_git = kept_by_git(tmp_path)
    different = []
    for number, content in enumerate(files):
        ours = kept(IgnoreRules(read_lines(content)), [".gitignore", *NAMES])
        if ours != {path.partition("/")[2] for path in by_git if path.startswith(f"d{number}/")}:
            different.append(content)
    assert not different


def test_nested_files_in_what_is_packed(tmp_path: Path) -> None:
    chance = random.Random(13)
    names = ["a", "b", "ab", "a.b", "ba", "sub/a", "sub/ab", "sub/deep/a.b", "sub/deep/b", "a.d/b", "a.d/sub/a"]
    lines = ["a", "/a", "*.b", "sub/a", "/sub/*", "deep/", "**/b", "a.d/**", "[ab]", "sub/**/a.b", "a.?", "ab "]
    for number in range(80):
        for folder in ("", "sub", "sub/deep", "a.d"):
            rules = "\r\n".join(chance.sample(lines, chance.randint(0, 2)))
            inside = [name.removeprefix(f"{folder}/") for name in names if name.startswith(folder)]
            write(tmp_path / f"d{number}" / folder, inside, b"\xef\xbb\xbf" + rules.encode())
    by_git = kept_by_git(tmp_path)
    ours = {
        f"d{number}/{entry.name}"
        for number in range(80)
        for entry in find_files(str(tmp_path / f"d{number}"), [], [".gitignore"])
        if not entry.is_folder
    }
    assert ours == by_git


def test_names_and_patterns_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).touch()
    (tmp_path / "café").touch()
    (tmp_path / os.fsdecode(b"x\xff.log")).touch()
    (tmp_path / ".gitignore").write_bytes(b"caf\xe9\n*.log\n")
    assert kept_by_git(tmp_path) == {".gitignore", "café"}
    shutil.rmtree(tmp_path / ".git")
    assert [entry.name for entry in find_files(str(tmp_path), [], [".gitignore"])] == [".gitignore", "café"]
