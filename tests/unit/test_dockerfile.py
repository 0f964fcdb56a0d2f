"""What a Dockerfile says of itself before it is built."""

import pytest

from builders.dockerfile import Dockerfile

HELIX = """\
# syntax=docker/dockerfile:1.7
ARG RUST=1.88
FROM --platform=$BUILDPLATFORM lukemathwalker/cargo-chef:latest-rust-${RUST} AS chef
RUN apt-get update && \\
    # a comment between
    apt-get install -y pkg-config

FROM chef AS planner
COPY . .
FROM chef AS builder
COPY --from=planner /app/recipe.json recipe.json
RUN --mount=type=cache,target=/x cargo build
FROM debian:bookworm-slim AS runtime
COPY --from=builder /app/x /usr/local/bin/
COPY --from=ghcr.io/acme/tool:1 /tool /tool
"""


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("FROM a\nRUN x\n", set()),
        ("# syntax=docker/dockerfile:1\nFROM a\n", {"syntax"}),
        ("# a comment first\n# syntax=docker/dockerfile:1\nFROM a\n", set()),
        ("FROM a\nRUN --mount=type=cache,target=/c x\n", {"mount"}),
        ("FROM a\nRUN \\\n  --mount=type=secret,id=k x\n", {"mount", "secret"}),
        ("FROM a\nRUN --mount=type=ssh x\n", {"mount", "secret"}),
        ("FROM a\nRUN <<EOF\nx\nEOF\nRUN y\n", {"heredoc"}),
        ("FROM a\nCOPY <<'X' <<-Y /d/\na\nX\nb\n\tY\n", {"heredoc"}),
        ("FROM a\nRUN echo $((1<<2)) # <<EOF\n", {"heredoc"}),
        ("FROM a\nRUN echo $((1<<2))\n", set()),
        ("FROM a\nCOPY --chmod=755 --link x /\n", {"chmod", "link"}),
        ("FROM a\nENV X=--mount=type=cache\n", set()),
        (HELIX, {"syntax", "mount"}),
    ],
)
def test_features_are_found(text: str, features: set[str]) -> None:
    assert Dockerfile(text).features == features


def test_a_here_document_hides_what_looks_like_instructions() -> None:
    text = "FROM a\nRUN <<EOF\nFROM b\nEOF\nCOPY x /x\n"
    assert [(i.line, i.name) for i in Dockerfile(text).instructions()] == [
        (1, "FROM"),
        (2, "RUN"),
        (5, "COPY"),
    ]


@pytest.mark.parametrize(
    ("text", "args", "target", "bases"),
    [
        ("FROM scratch\n", {}, "", []),
        ("ARG V=3\nFROM alpine:$V\n", {}, "", ["alpine:3"]),
        ("ARG V=3\nFROM alpine:${V}\n", {"V": "4"}, "", ["alpine:4"]),
        ("ARG V\nFROM alpine:${V:-5}\n", {}, "", ["alpine:5"]),
        ("ARG B\nFROM ${B:+x/}alpine\n", {"B": "1"}, "", ["x/alpine"]),
        ("ARG A=1\nARG B=v$A\nFROM a:$B\n", {}, "", ["a:v1"]),
        ("FROM a AS x\nFROM b AS y\nFROM X\n", {}, "", ["a"]),
        ("FROM a AS x\nFROM b AS y\n", {}, "x", ["a"]),
        ("FROM a\nFROM b\nCOPY --from=0 / /\n", {}, "", ["b", "a"]),
        ("FROM a\nRUN --mount=type=bind,from=tools:1 x\n", {}, "", ["a", "tools:1"]),
        (
            HELIX,
            {},
            "",
            [
                "debian:bookworm-slim",
                "ghcr.io/acme/tool:1",
                "lukemathwalker/cargo-chef:latest-rust-1.88",
            ],
        ),
    ],
)
def test_base_images_are_resolved(
    text: str, args: dict[str, str], target: str, bases: list[str]
) -> None:
    assert Dockerfile(text).bases(args, target) == bases


def test_copied_paths_are_named_with_their_line() -> None:
    text = "FROM a\nCOPY app ./conf/x.toml /\nADD https://x/y z* /d\nCOPY --from=b q /\nCOPY $V /\n"
    assert list(Dockerfile(text).copies()) == [(2, "app"), (2, "conf/x.toml")]


def test_the_syntax_line_goes_and_the_line_numbers_stay() -> None:
    dockerfile = Dockerfile("# escape=`\n# syntax = docker/dockerfile:1.7\nFROM a\n# syntax=no\n")
    assert dockerfile.syntax == "docker/dockerfile:1.7"
    assert dockerfile.without_syntax == "# escape=`\n#\nFROM a\n# syntax=no\n"


def test_an_escape_directive_is_followed() -> None:
    text = "# escape=`\nFROM a\nRUN x `\n  y\nCOPY a\\ b\n"
    assert [i.line for i in Dockerfile(text).instructions()] == [2, 3, 5]


def test_a_quoted_instruction_is_found_again() -> None:
    assert Dockerfile(HELIX).line_of("RUN --mount=type=cache,target=/x cargo build") == 12
    assert Dockerfile(HELIX).line_of("RUN nothing like it") is None
