"""A helix.toml that somebody made to hurt: every answer comes soon, and is the documented one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.checks import check
from project.document import MAX_BYTES, parse
from project.eras import ERAS, verdict
from project.load import understand
from project.problems import ConfigErrors

HEAD = '[project]\nname = "s"\n'


def _many(line: Callable[[int], str]) -> str:
    """As many lines as a file may have."""
    text, number = [HEAD], 0
    left = MAX_BYTES - len(HEAD) - 64
    while left > 0:
        text.append(line(number))
        left -= len(text[-1].encode())
        number += 1
    return "".join(text)


HOSTILE = {
    "many instances": _many(lambda n: f"[local.a{n}]\n"),
    "many wrong instances": _many(lambda n: f"[cloud.a{n}]\n"),
    "many wrong ports": _many(lambda n: f'[local.a{n}]\nport = "x"\n'),
    "many unknown keys": HEAD + "[local.dev]\n" + _many(lambda n: f"k{n} = 1\n").removeprefix(HEAD),
    "many unknown tables": _many(lambda n: f"[t{n}]\n"),
    "a long wrong list": HEAD
    + "[cloud.p.helix]\ngraph_config = { secondary_indices = ["
    + "1," * 100_000
    + "] }\n",
    "many settings of nobody": _many(lambda n: f"[deploy.d{n}]\n"),
    "many secrets": HEAD
    + "[local.dev]\n[deploy.dev.secrets]\n"
    + _many(lambda n: f'S{n} = "env:NO_{n}"\n').removeprefix(HEAD),
    "a long name": f'[project]\nname = "{"x" * 200_000}"\n[local.dev]\n',
    "a deep unknown value": HEAD + "[local.dev]\nx = " + "[" * 80 + "]" * 80 + "\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_all_checks_of_a_hostile_file_end_soon(name: str) -> None:
    document = parse(HOSTILE[name].encode())
    started = time.process_time()
    check(understand(document))
    for era in ERAS.values():
        verdict(document, era)
    assert time.process_time() - started < 20


_WORDS = st.sampled_from(
    ["project", "local", "cloud", "enterprise", "deploy", "name", "dev", "", "fly", "helix", "ecr"]
    + ["docker", "FlyIo", "port", "build_mode", "vm_size", "volume", "auth_type", "private", "env"]
    + ["privacy", "cluster_id", "database", "s3", "storage", "bucket", "steps", "health_check"]
    + ["health-check", "registry", "secrets", "volumes", "build", "image", "vector_config", "m"]
    + ["graph_config", "secondary_indices", "queries", "env_vars", "command", "strategy", "type"]
)
_VALUES = st.one_of(
    st.integers(-1, 70000),
    st.integers(),
    st.booleans(),
    st.floats(),
    st.dates(),
    st.text(max_size=5),
    st.sampled_from(["debug", "release", "Cli", "cli", "Private", "s3", "env:X", "a:/b", "30s"]),
)
_TREES: st.SearchStrategy[Any] = st.recursive(
    _VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_WORDS, inner, max_size=4)
    ),
    max_leaves=15,
)


@settings(max_examples=400, deadline=5000)
@given(st.dictionaries(_WORDS, _TREES, max_size=5))
def test_any_toml_is_judged_without_an_unforeseen_error(data: dict[str, Any]) -> None:
    import tomlkit

    raw = tomlkit.dumps(data).encode("utf-8", "replace")
    try:
        document = parse(raw)
    except ConfigErrors:
        return
    problems = check(understand(document))
    assert all(problem.message for problem in problems)
    accepted = [name for name, era in ERAS.items() if not verdict(document, era)]
    if set(accepted) & {"v2.0", "v2.1", "v2.3"} and not document.data.get("deploy"):
        wrong = [problem for problem in problems if problem.severity == "error"]
        assert all(problem.code in ("name", "no-instance") for problem in wrong), wrong
