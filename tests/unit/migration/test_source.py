"""Changes of a Python file leave all else as it is: comments, encodings, ends of lines."""

from __future__ import annotations

import ast

import pytest

from airflow_provider_rayjobs.migration.source import Item, Source


def call_in(source: Source) -> ast.Call:
    return next(node for node in ast.walk(source.tree) if isinstance(node, ast.Call))


def renamed(content: str, *new: str, without: str = "") -> str:
    """Write the arguments of the only call in capitals, without one of them, and add new ones."""
    source = Source(content.encode())
    call = call_in(source)
    items = [
        Item(None if k.arg == without else source.segment(k).upper(), source.start(k), source.end(k))
        for k in call.keywords
    ]
    opened = source.text.index("(", source.end(call.func)) + 1
    source.rewrite_items(opened, source.end(call) - 1, [*items, *map(Item, new)])
    return source.result()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f(a=1, b=2)\n", "f(A=1, B=2, n=3)\n"),
        ("f()\n", "f(n=3)\n"),
        ("é = f(a='ü')\n", "é = f(A='Ü', n=3)\n"),
        ("f(\n    a=1,\n    b=2\n)\n", "f(\n    A=1,\n    B=2,\n    n=3,\n)\n"),
        ("f(a=1,\n  b=2)\n", "f(\n  A=1,\n  B=2,\n  n=3,\n)\n"),
        ("if x:\n\tf(\n\t\ta=1,  # one\n\t)  # end\n", "if x:\n\tf(\n\t\tA=1,  # one\n\t\tn=3,\n\t)  # end\n"),
        ("f(\n    # above\n    a=1,\n    # last\n)\n", "f(\n    # above\n    A=1,\n    n=3,\n    # last\n)\n"),
        ("f(a=[\n    1,  # in\n])\n", "f(A=[\n    1,  # IN\n], n=3)\n"),
        ("f(\r\n    a=1,\r\n)\r\n", "f(\r\n    A=1,\r\n    n=3,\r\n)\r\n"),
        (f"f(a={'1' * 60}, b={'1' * 60})\n", f"f(\n    A={'1' * 60},\n    B={'1' * 60},\n    n=3,\n)\n"),
    ],
)
def test_arguments_keep_their_layout_and_comments(before: str, after: str) -> None:
    assert renamed(before, "n=3") == after


def test_a_comment_goes_with_its_argument() -> None:
    assert renamed("f(\n    a=1,  # one\n    b=2,  # two\n)\n", without="a") == "f(\n    B=2,  # two\n)\n"
    assert renamed("f(a=1, b=2)\n", without="b") == "f(A=1)\n"


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfx = '\xc3\xa9'\n", b"# coding: latin-1\nx = '\xe9'\n", b"x = 1\r\n"])
def test_the_encoding_stays(content: bytes) -> None:
    source = Source(content)
    assert source.encoded(source.result()) == content


@pytest.mark.parametrize("content", [b"x = (", b"x = '\xff'\n", b"# coding: none\n", b"x = 1\0"])
def test_what_is_not_python_is_refused(content: bytes) -> None:
    with pytest.raises(SyntaxError):
        Source(content)


def test_statements_are_removed_with_their_lines() -> None:
    source = Source(b"import a  # why\nimport b; import c\n")
    source.remove_statement(source.tree.body[0])
    source.remove_statement(source.tree.body[1])
    assert source.result() == "pass; import c\n"
    assert [source.line_after(line) for line in (1, 2)] == [1, 1]


def test_changes_can_be_dropped() -> None:
    source = Source(b"a\nb\n")
    source.replace(source.tree.body[0], "x")
    number = source.number_of_edits
    source.replace(source.tree.body[1], "y")
    source.drop_edits(number)
    assert source.result() == "x\nb\n"
