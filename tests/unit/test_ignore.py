"""What a `.dockerignore` leaves out. The same table is held against a real Docker elsewhere."""

import pytest

from model.errors import ConfigurationError
from project.ignore import Ignore, read_patterns
from tests.services.contexts import IGNORE_CASES, left_in


@pytest.mark.parametrize(("text", "files", "kept"), IGNORE_CASES)
def test_patterns_leave_out_what_docker_leaves_out(
    text: str, files: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    assert left_in(Ignore(read_patterns(text)), files) == sorted(kept)


def test_comments_blank_lines_and_a_byte_order_mark_are_no_patterns() -> None:
    assert read_patterns("\ufeff# a\n\n  b/ \n! /c/../d\n #e\n/\n") == ["b", "!d", "#e", "/"]


def test_a_malformed_pattern_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"«a\[b»"):
        Ignore(["a[b"])


def test_a_lone_exclamation_mark_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="«!»"):
        Ignore(["!"])
