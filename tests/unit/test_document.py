"""TOML text: positions, both versions of the language, and everything that can be thrown at it."""

from __future__ import annotations

import time
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from project.document import MAX_BYTES, MAX_DEPTH, parse, read
from project.problems import ConfigErrors, Key

SAMPLE = """\
# a shop
[project]
name = "shop"   # its name

[cloud]
prod.fly = { vm_size = "a10", volume = "v:/data" }

[cloud."my dev".docker]
host = 'ssh://h'
tags = [
  "one", # first
  "two",
]

[[extra]]
x = 1
[[extra]]
x = 2
"""


@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        (("project",), (2, 2), (2, 2)),
        (("project", "name"), (3, 1), (3, 8)),
        (("cloud", "prod", "fly", "volume"), (6, 31), (6, 40)),
        (("cloud", "my dev", "docker", "host"), (9, 1), (9, 8)),
        (("cloud", "my dev", "docker", "tags", 1), (12, 3), (12, 3)),
        (("extra", 1, "x"), (18, 1), (18, 5)),
        (("project", "missing"), (2, 2), (2, 2)),
        ((), (1, 1), (1, 1)),
    ],
)
def test_every_key_and_value_knows_its_place(
    key: Key, name: tuple[int, int], value: tuple[int, int]
) -> None:
    document = parse(SAMPLE.encode())
    assert document.position(key) == name
    assert document.position(key, of_value=True) == value


def test_values_are_those_of_pythons_parser() -> None:
    assert parse(SAMPLE.encode()).data == tomllib.loads(SAMPLE)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    raw = b"\xef\xbb\xbf" + SAMPLE.replace("\n", "\r\n").encode()
    document = parse(raw)
    assert document.bom
    assert document.data == tomllib.loads(SAMPLE)
    assert document.position(("project", "name")) == (3, 1)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a = { b = 1, }\n", {"a": {"b": 1}}),
        ("a = {\n  b = 1, # one\n  c = { d = [\n 1\n] },\n}\n", {"a": {"b": 1, "c": {"d": [1]}}}),
        ('a = "\\e[0m\\x41"\n', {"a": "\x1b[0mA"}),
        ('"\\x41" = 1\n', {"A": 1}),
        ('a = """\n\\e"""\n', {"a": "\x1b"}),
        ("a = '\\e'\n", {"a": "\\e"}),
    ],
)
def test_toml_1_1_is_read_too(text: str, data: dict[str, object]) -> None:
    assert parse(text.encode()).data == data


def test_an_error_is_placed_even_where_the_text_had_to_be_reworded() -> None:
    text = 'a = "\\e\\e\\e"\nb = 01\n'
    with pytest.raises(ConfigErrors) as caught:
        parse(text.encode())
    (problem,) = caught.value.problems
    assert (problem.line, problem.code) == (2, "syntax")


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("[project\nname='x'\n", 1, 9),
        ("[a]\nb = \n", 2, 5),
        ("[a]\nb = 'x\n", 2, 5),
        ("a 1\n", 1, 3),
        ("a = 1 b = 2\n", 1, 7),
        ("a = [1, 2\n", 2, 1),
        ("a = { b = 1\n", 2, 1),
        ("a = 1\na = 2\n", 2, 1),
        ("é = 1\n", 1, 1),
    ],
)
def test_a_syntax_error_says_where(text: str, line: int, column: int) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(text.encode())
    (problem,) = caught.value.problems
    assert problem.code == "syntax"
    assert problem.line == line
    assert abs(problem.column - column) <= 5


def test_other_encodings_are_named_with_their_place() -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse("[project]\nname = 'é'\n".encode("latin-1"))
    (problem,) = caught.value.problems
    assert (problem.code, problem.line, problem.column) == ("encoding", 2, 9)


def test_a_file_that_cannot_be_read_is_the_documented_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(ConfigErrors) as caught:
            read(path)
        assert caught.value.problems[0].code == "unreadable"


@pytest.mark.parametrize(
    "raw",
    [
        b"a = " + b"[" * 100_000,
        b"a = " + b"{b=" * 100_000,
        b".".join([b"a"] * 100_000) + b" = 1",
        b"[" + b".".join([b"a"] * 100_000) + b"]",
        b"\n".join(b"[a%d.b.c]" % n for n in range(60_000)),
        b"\n".join(b"[[a]]" for n in range(100_000)),
        b"a = " + b"9" * 900_000,
        b'a = "' + b"\\" * 900_000,
        b'a = """' + b'"' * 900_000,
        b"a = '''" + b"'x" * 400_000,
        b"a = [" + b"1," * 400_000,
        b"# " + b"x" * MAX_BYTES,
        b"\x00" * 100_000,
        b"\n" * 1_000_000,
    ],
    ids=range(14),
)
def test_time_and_depth_are_bounded(raw: bytes) -> None:
    started = time.process_time()
    with suppress(ConfigErrors):
        parse(raw[:MAX_BYTES])
    assert time.process_time() - started < 10


def test_nesting_ends_where_the_original_parsers_end() -> None:
    parse(b"a = " + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(ConfigErrors):
        parse(b"a = " + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


_PIECES = st.sampled_from(
    ["[", "]", "{", "}", "=", ".", ",", '"', "'", '"""', "'''", "\\", "\n", "\r\n", "#", " ", "\t"]
    + ["a", "project", "name", "1", "-1", "1.5", "true", "1979-05-27", "07:32", "\x00", "\ufeff"]
    + ["\\e", "\\x41", "\\u00e9", "é", "[project]\n", 'name = "x"\n', "[local.dev]\n", "port = 1\n"]
)


@settings(max_examples=400, deadline=2000)
@given(st.one_of(st.binary(max_size=300), st.lists(_PIECES, max_size=40).map("".join)))
@example(b"\xff")
@example("a=\r")
def test_anything_is_either_read_or_the_documented_error(thing: bytes | str) -> None:
    raw = thing if isinstance(thing, bytes) else thing.encode("utf-8", "surrogatepass")
    try:
        document = parse(raw)
    except ConfigErrors as error:
        assert error.problems
        return
    assert isinstance(document.data, dict)
    if not document.toml_1_1:
        assert document.data == tomllib.loads(document.text) or "nan" in document.text
