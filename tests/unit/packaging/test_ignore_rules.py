"""Which files stay out of a package, as Ray decides it; tests/integration holds the rules against Ray's own code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_rayjobs.exceptions import RayPackageError
from airflow_provider_rayjobs.packaging import folder
from airflow_provider_rayjobs.packaging.folder import find_files
from airflow_provider_rayjobs.packaging.ignore_rules import IgnoreRules

BOTH = (".gitignore", ".rayignore")


def tree(root: Path, *names: str) -> str:
    """Make files; a name that ends in a slash is a folder."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(name)
    return str(root)


def names(root: str | Path, excludes: tuple[str, ...] = (), ignore_files: tuple[str, ...] = BOTH) -> list[str]:
    return [entry.name + "/" * entry.is_folder for entry in find_files(str(root), excludes, ignore_files)]


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ([], ["a.py", "data/x.bin", "data/y.bin", "lib/a.py", "lib/data/z.bin"]),
        (["*.bin"], ["a.py", "lib/a.py"]),
        (["a.py"], ["data/x.bin", "data/y.bin", "lib/data/z.bin"]),
        (["/a.py"], ["data/x.bin", "data/y.bin", "lib/a.py", "lib/data/z.bin"]),
        (["data/"], ["a.py", "lib/a.py"]),
        (["/data"], ["a.py", "lib/a.py", "lib/data/z.bin"]),
        (["data/*", "!data/y.bin"], ["a.py", "data/y.bin", "lib/a.py", "lib/data/z.bin"]),
        (["data/", "!data/y.bin"], ["a.py", "data/y.bin", "lib/a.py"]),  # git would not take it back; Ray does
        (["data", "!data/y.bin"], ["a.py", "lib/a.py"]),
        (["**/data/**"], ["a.py", "lib/a.py"]),
        (["lib/**/z.bin", "# a.py", "", "  "], ["a.py", "data/x.bin", "data/y.bin", "lib/a.py"]),
        (["*", "!*.py"], ["a.py"]),  # a folder that is left out is not entered
    ],
)
def test_patterns(tmp_path: Path, patterns: list[str], kept: list[str]) -> None:
    root = tree(tmp_path, "a.py", "data/x.bin", "data/y.bin", "lib/a.py", "lib/data/z.bin")
    assert names(root, tuple(patterns)) == kept


def test_ignore_files_hold_below_their_folder_and_any_of_them_may_exclude(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.log", "b.tmp", "sub/a.log", "sub/b.tmp", "sub/c.txt", "sub/deep/c.txt", "c.txt")
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / ".rayignore").write_text("*.tmp\n!a.log\n")  # takes back nothing of another file
    (tmp_path / "sub/.gitignore").write_text("/c.txt\n!b.tmp\n")
    assert names(root) == [".gitignore", ".rayignore", "c.txt", "sub/.gitignore", "sub/deep/c.txt"]
    only_ray = names(root, (), (".rayignore",))
    assert "a.log" in only_ray
    assert "sub/c.txt" in only_ray
    assert "b.tmp" not in only_ray


def test_a_folder_that_excludes_all_of_itself_is_not_packed(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.py", "venv/lib/x.py")
    (tmp_path / "venv/.gitignore").write_text("*\n")
    assert names(root) == ["a.py"]


def test_empty_folders_are_kept_and_folders_whose_files_are_excluded_are_not(tmp_path: Path) -> None:
    root = tree(tmp_path, "empty/", "a/b/", "logs/x.log", "cache/")
    assert names(root, ("*.log", "cache/")) == ["a/b/", "cache/", "empty/"]
    assert names(root, ("*.log", "cache")) == ["a/b/", "empty/"]


def test_excluded_folders_are_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    scandir = os.scandir

    class Counting:
        def __init__(self, path: str) -> None:
            self.inner = scandir(path)
            self.path = path

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_: object) -> None:
            self.inner.close()

        def __iter__(self) -> Counting:
            return self

        def __next__(self) -> os.DirEntry[str]:
            entry = next(self.inner)
            read.append(str(Path(self.path, entry.name)))
            return entry

    monkeypatch.setattr(folder.os, "scandir", Counting)
    root = tree(tmp_path, *(f"node_modules/m{i}/{j}.js" for i in range(20) for j in range(10)), "a.py")
    for rule in ("node_modules/", "node_modules", "/node_modules/**"):
        read.clear()
        assert names(root, (rule,)) == ["a.py"]
        assert len(read) <= 3, rule  # the root's two entries, and at most one to see that the folder is not empty


def test_many_excluded_files_beside_a_few(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    (tmp_path / "one").write_text("")
    for number in range(20_000):
        os.link(tmp_path / "one", tmp_path / f"many/{number}.tmp")
    tree(tmp_path, *(f"many/keep{i}.py" for i in range(10)))
    assert names(tmp_path, ("*.tmp", "one")) == [f"many/keep{i}.py" for i in range(10)]
    assert names(tmp_path, ("many/*", "!many/keep*", "one")) == [f"many/keep{i}.py" for i in range(10)]


def test_wildcards_that_match_a_folder_by_chance_do_not_hide_what_is_in_it() -> None:
    assert not IgnoreRules(["foo[!x]"]).exclude_all_below("foo")
    assert not IgnoreRules(["*.py"]).exclude_all_below("foo")
    assert not IgnoreRules(["foo/", "!foo/keep"]).exclude_all_below("foo")
    assert IgnoreRules(["foo/"]).exclude_all_below("foo")
    assert IgnoreRules(["foo/"]).exclude_all_below("a/foo")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("[a-Z]*.tmp", "the pattern '[a-Z]*.tmp' can't be read (bad character range a-Z); correct it"),
        ("data/[!9-0]", "the pattern 'data/[!9-0]' can't be read (bad character range 9-0); correct it"),
        ("a\\", "can't be read (Invalid git pattern"),
        ("!", "the pattern '!' can't be read"),
    ],
)
def test_a_pattern_that_cannot_be_read_is_told(tmp_path: Path, pattern: str, words: str) -> None:
    tree(tmp_path, "a.py", "sub/b.py")
    with pytest.raises(RayPackageError) as caught:
        names(tmp_path, ("*.log", pattern))
    assert str(caught.value).startswith("runtime_env['excludes']: the pattern ")
    assert words in str(caught.value)
    for file in (".gitignore", ".rayignore", "sub/.gitignore", "sub/.rayignore"):
        (tmp_path / file).write_text(f"*.log\n{pattern}\n")
        with pytest.raises(RayPackageError) as caught:
            names(tmp_path)
        assert str(caught.value).startswith(f"'{tmp_path}/{file}': the pattern ")
        assert words in str(caught.value)
        (tmp_path / file).unlink()


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_file_as_a_windows_editor_saves_it(tmp_path: Path, mark: bytes, end: bytes) -> None:
    tree(tmp_path, "a.log", "data/big", "main.py", "sub/a.tmp")
    for name, lines in ((".gitignore", b"data/"), (".rayignore", b"*.log"), ("sub/.gitignore", b"*.tmp")):
        (tmp_path / name).write_bytes(mark + lines + end)
    assert names(tmp_path) == [".gitignore", ".rayignore", "main.py", "sub/.gitignore"]


def test_a_file_in_which_nobody_finds_a_pattern(tmp_path: Path) -> None:
    tree(tmp_path, "a.log")
    (tmp_path / ".gitignore").write_text("*.log\n", encoding="utf-16")
    with pytest.raises(RayPackageError, match=r"\.gitignore': it is UTF-16, .*; save it as UTF-8"):
        names(tmp_path)


def test_an_excluded_pattern_may_end_its_line() -> None:
    assert IgnoreRules(["a\n", "b\r\n"]).exclude("a")
    assert IgnoreRules(["a\n", "b\r\n"]).exclude("b")
