"""Edits of a TOML text: they do what they say, and touch nothing else."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from model.errors import ConfigurationError
from project.document import parse
from project.edit import remove, set_value, write_atomically
from project.problems import Key

DATA = Path(__file__).parent.parent / "data" / "helix_toml"

SHOP = """\
# the shop
[project]
name = "shop"  # its name

# for developers
[local.dev]
port = 6969

# for customers
[cloud.prod.fly]
vm_size = "a10" # large
"""


@pytest.mark.parametrize(
    ("before", "key", "value", "after"),
    [
        ('a = "x"  # c\n', ("a",), "y", 'a = "y"  # c\n'),
        ("a = 1\r\nb = 2\r\n", ("c",), 3, "a = 1\r\nb = 2\r\nc = 3\r\n"),
        ("[t]\n  a = 1 # c\n\n[u]\n", ("t", "b"), True, "[t]\n  a = 1 # c\n  b = true\n\n[u]\n"),
        ("[t]\na = 1", ("t", "b"), 2, "[t]\na = 1\nb = 2\n"),
        ("[t]", ("t", "b"), 2, "[t]\nb = 2\n"),
        ("[t.u]\n", ("t", "a"), 1, "[t.u]\n\n[t]\na = 1\n"),
        ("t.a = 1 # c\n[u]\n", ("t", "b"), 2, "t.a = 1 # c\nt.b = 2\n[u]\n"),
        ("t = { a = 1 }\n", ("t", "b"), 2, "t = { a = 1, b = 2 }\n"),
        ("t = {}\n", ("t", "b"), 2, "t = { b = 2 }\n"),
        ("t = {\n a = 1, # c\n}\n", ("t", "b"), 2, "t = {\n a = 1, b = 2, # c\n}\n"),
        ("t = {}\n", ("t", "u", "v"), 2, "t = { u = { v = 2 } }\n"),
        ("# top\n[t]\n", ("a",), 1, "a = 1\n\n# top\n[t]\n"),
        ("", ("t", "a"), "x", '[t]\na = "x"\n'),
        ("", ("a b", ""), 1, '["a b"]\n"" = 1\n'),
        (
            "[t]\na = [\n 1, # one\n 2,\n]\n",
            ("t", "b"),
            1,
            "[t]\na = [\n 1, # one\n 2,\n]\nb = 1\n",
        ),
        (
            "[t]\na = 1\n",
            ("u",),
            {"b": 1, "v": {"c": 2}},
            "[t]\na = 1\n\n[u]\nb = 1\n\n[u.v]\nc = 2\n",
        ),
        ("[t]\na = 1\n", ("u", "v"), {}, "[t]\na = 1\n\n[u.v]\n"),
        ("t = { a = 1 }\n", ("t", "u"), {"b": [1, "x"]}, 't = { a = 1, u = { b = [1, "x"] } }\n'),
    ],
)
def test_a_value_lands_where_a_person_would_put_it(
    before: str, key: Key, value: Any, after: str
) -> None:
    assert set_value(before, key, value) == after
    assert set_value(after, key, value) == after


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ("a = 1 # c\nb = 2\n", ("a",), "b = 2\n"),
        (SHOP, ("local", "dev"), SHOP.replace("[local.dev]\nport = 6969\n\n", "")),
        (SHOP, ("cloud", "prod"), SHOP[: SHOP.index("\n[cloud") + 1]),
        ("[a.b]\nx = 1\n[c]\n[a.d]\ny = 1\n", ("a",), "[c]\n"),
        ("t = { a = 1, b = 2, c = 3 }\n", ("t", "b"), "t = { a = 1, c = 3 }\n"),
        ("t = { a = 1, b = 2 }\n", ("t", "b"), "t = { a = 1 }\n"),
        ("t = { a = 1, }\n", ("t", "a"), "t = {}\n"),
        ("t = { u.a = 1, u.b = 2, c = 3 }\n", ("t", "u"), "t = { c = 3 }\n"),
        ("t.a = 1\nt.b = 2\nc = 3\n", ("t",), "c = 3\n"),
        ("[a]\nx = 1\n", ("b", "c"), "[a]\nx = 1\n"),
        ("[a]\nx = '''\n[b]\n'''\n[c]\n", ("a",), "[c]\n"),
        ("[[a]]\nx = 1\n[[a]]\nx = 2\n[b]\n", ("a",), "[b]\n"),
    ],
)
def test_removing_takes_the_thing_and_its_own_comments(before: str, key: Key, after: str) -> None:
    assert remove(before, key) == after
    assert remove(after, key) == after


def test_a_table_is_not_overwritten_by_a_value() -> None:
    with pytest.raises(ConfigurationError, match="is a table"):
        set_value("[a.b]\n", ("a", "b"), 1)


def test_a_key_inside_a_plain_value_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not a table"):
        set_value("a = 1\n", ("a", "b"), 1)


# --- any file ------------------------------------------------------------------------------------

_NAMES = st.sampled_from(["a", "b", "dev", "my dev", "é", "x.y", "1", ""])
_SCALARS = st.one_of(
    st.integers(-(2**40), 2**40),
    st.booleans(),
    st.text(alphabet="ab#\n\"'\\=[]{} é", max_size=8),
    st.sampled_from([1.5, -0.25]),
)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_NAMES, inner, max_size=3)
    ),
    max_leaves=6,
)
_TREES = st.dictionaries(
    _NAMES, st.one_of(_VALUES, st.dictionaries(_NAMES, _VALUES, max_size=3)), max_size=4
)


def _quoted(name: str) -> str:
    bare = name.isascii() and name.isalnum() and name != ""
    return name if bare else f'"{name}"'


@st.composite
def written(draw: st.DrawFn) -> str:
    """A TOML text: random content, in a random mix of all ways to write it."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    lines: list[str] = []

    def noise() -> None:
        lines.extend(
            draw(st.lists(st.sampled_from(["", "# a comment", "  # [not.a.table]"]), max_size=2))
        )

    def value(thing: Any) -> str:
        if isinstance(thing, bool):
            return str(thing).lower()
        if isinstance(thing, str):
            if "'" not in thing and "\n" not in thing and draw(st.booleans()):
                return f"'{thing}'"
            for plain, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
                thing = thing.replace(plain, escape)
            return f'"{thing}"' if draw(st.booleans()) else f'"""{newline}{thing}"""'
        if isinstance(thing, list):
            if draw(st.booleans()):
                return "[" + ", ".join(map(value, thing)) + "]"
            inside = "".join(f"  {value(each)}, # ]{newline}" for each in thing)
            return f"[{newline}{inside}]"
        if isinstance(thing, dict):
            pairs = [f"{_quoted(name)} = {value(each)}" for name, each in thing.items()]
            return "{" + draw(st.sampled_from([", ", ","])).join(pairs) + "}"
        return repr(thing)

    def table(path: tuple[str, ...], content: dict[str, Any]) -> None:
        inner = [
            name
            for name, each in content.items()
            if isinstance(each, dict) and draw(st.integers(0, 3)) > 0
        ]
        plain = {name: each for name, each in content.items() if name not in inner}
        if path and (plain or not inner or draw(st.booleans())):
            noise()
            lines.append("[" + ".".join(map(_quoted, path)) + "]" + draw(_TAILS))
        for name, each in plain.items():
            noise()
            if isinstance(each, dict) and each and draw(st.booleans()):
                for key, item in each.items():
                    lines.append(f"{_quoted(name)}.{_quoted(key)} = {value(item)}{draw(_TAILS)}")
            else:
                indent = draw(st.sampled_from(["", "  ", "\t"]))
                lines.append(f"{indent}{_quoted(name)} = {value(each)}{draw(_TAILS)}")
        for name in inner:
            table((*path, name), content[name])

    table((), draw(_TREES))
    noise()
    return newline.join(lines) + draw(st.sampled_from(["", newline, newline * 3]))


_TAILS = st.sampled_from(["", "", "  # tail", "\t"])


def _keys(data: Any, above: Key = ()) -> list[Key]:
    """Every key path of tables and values, lists apart."""
    if not isinstance(data, dict):
        return []
    found: list[Key] = []
    for name, value in data.items():
        found += [(*above, name), *_keys(value, (*above, name))]
    return found


def _at(data: Any, key: Key) -> Any:
    for part in key:
        data = data[part]
    return data


def _put(data: dict[str, Any], key: Key, value: Any) -> None:
    for part in key[:-1]:
        data = data.setdefault(str(part), {})
    data[str(key[-1])] = value


def _settable(data: Any, path: list[str]) -> bool:
    """Whether nothing but tables leads to a key that is no table itself."""
    for part in path:
        if not isinstance(data, dict):
            return False
        if part not in data:
            return True
        data = data[part]
    return not isinstance(data, dict)


def _is_subsequence(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(letter in rest for letter in part)


@settings(max_examples=150, deadline=None)
@given(written(), st.data())
def test_a_changed_value_leaves_every_other_byte(text: str, data: st.DataObject) -> None:
    document = parse(text.encode())
    assert document.data == tomllib.loads(text)
    values = [
        key
        for key in document.layout.ends
        if all(isinstance(part, str) for part in key)
        and not isinstance(_at(document.data, key), dict)
    ]
    assume(values)
    key = data.draw(st.sampled_from(values))
    new = data.draw(_SCALARS)
    edited = set_value(text, key, new)
    start, end = document.places[key][1], document.layout.ends[key]
    assert edited.startswith(text[:start])
    assert edited.endswith(text[end:])
    expected = copy.deepcopy(document.data)
    _put(expected, key, new)
    assert tomllib.loads(edited) == expected
    assert set_value(edited, key, new) == edited


@settings(max_examples=150, deadline=None)
@given(written(), st.lists(_NAMES, min_size=1, max_size=3), _SCALARS)
def test_a_new_value_only_adds(text: str, path: list[str], new: Any) -> None:
    before = tomllib.loads(text)
    if not _settable(before, path):
        with pytest.raises(ConfigurationError, match="not a"):
            set_value(text, tuple(path), new)
        return
    edited = set_value(text, tuple(path), new)
    expected = copy.deepcopy(before)
    _put(expected, tuple(path), new)
    assert tomllib.loads(edited) == expected
    assert set_value(edited, tuple(path), new) == edited
    if tuple(path) not in _keys(before):
        assert _is_subsequence(text, edited)


@settings(max_examples=150, deadline=None)
@given(written(), st.data())
def test_removing_only_takes_away(text: str, data: st.DataObject) -> None:
    before = tomllib.loads(text)
    keys = _keys(before)
    assume(keys)
    key = data.draw(st.sampled_from(keys))
    edited = remove(text, key)
    assert _is_subsequence(edited, text)
    after = tomllib.loads(edited)
    assert key not in _keys(after)
    kept = [other for other in _keys(before) if other[: len(key)] != key]
    gone = [other for other in kept if other not in _keys(after)]
    assert all(key[: len(other)] == other for other in gone)  # only tables that became empty
    assert remove(edited, key) == edited


@pytest.mark.parametrize("file", sorted(DATA.glob("v*/*.toml")), ids=lambda file: file.stem)
def test_an_instance_added_to_and_removed_from_a_real_file_leaves_it_as_it_was(file: Path) -> None:
    text = file.read_text()
    edited = set_value(text, ("cloud", "extra", "docker"), {"host": "ssh://h", "publish": 80})
    assert edited.startswith(text)
    assert remove(edited, ("cloud", "extra")) == text


def test_a_file_is_replaced_at_once_and_keeps_its_mode_and_link(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "helix.toml"
    link.symlink_to(real)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["helix.toml", "real.toml"]
