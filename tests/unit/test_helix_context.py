"""HelixDB's own command, told apart from ours, and what it says read by people."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.helix import SETTING, find_helix, prepare_context
from model.errors import BuildFailed, ConfigurationError
from model.instance import Instance, Target

INSTANCE = Instance(project="shop", name="dev", target=Target(kind="local"))

THEIRS = """#!/bin/sh
if [ "$1" = --version ]; then echo "Helix CLI 2.0.0"; exit; fi
"""


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(SETTING, raising=False)
    return folder


def install(path: Path, script: str) -> Path:
    path.write_text(script)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "script",
    [
        "#!/usr/bin/env python3\nraise SystemExit('never started')\n",
        '#!/bin/sh\necho "helix-deploy 0.1.0"\n',
        '#!/bin/sh\necho "something else 1.0"\n',
        "#!/bin/sh\nexit 1\n",
    ],
)
def test_our_own_command_is_not_taken_for_theirs(
    script: str, bin_dir: Path, tmp_path: Path
) -> None:
    install(bin_dir / "helix", script)
    assert find_helix() is None
    with pytest.raises(ConfigurationError, match="is not installed") as caught:
        prepare_context(INSTANCE, tmp_path)
    assert SETTING in caught.value.hint


def test_theirs_is_found_behind_ours(bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(bin_dir / "helix", '#!/bin/sh\necho "helix-deploy 0.1.0"\n')
    second = bin_dir.with_name("bin2")
    second.mkdir()
    theirs = install(second / "helix", THEIRS)
    monkeypatch.setenv("PATH", f"{bin_dir}:{second}:/usr/bin:/bin")
    assert find_helix() == str(theirs)


def test_a_setting_that_names_something_else_is_refused(
    bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, "/bin/true")
    with pytest.raises(ConfigurationError, match="/bin/true"):
        find_helix()


def test_the_generated_folder_is_the_context(bin_dir: Path, tmp_path: Path) -> None:
    install(
        bin_dir / "helix",
        f'{THEIRS}[ "$1 $2" = "build dev" ] && mkdir -p .helix/dev && '
        "echo FROM scratch > .helix/dev/Dockerfile && echo done\n",
    )
    lines: list[str] = []
    context = prepare_context(INSTANCE, tmp_path, lines.append)
    assert context == tmp_path / ".helix/dev"
    assert (context / "Dockerfile").is_file()
    assert lines == ["done"]


def test_a_kind_without_a_dockerfile_is_said_so(bin_dir: Path, tmp_path: Path) -> None:
    install(bin_dir / "helix", THEIRS)
    with pytest.raises(ConfigurationError, match="wrote no Dockerfile"):
        prepare_context(INSTANCE, tmp_path)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "error[E201]: unknown node User\\n  --> db/queries.hx:12:7",
            "db/queries.hx:12:7 does not",
        ),
        ("db/queries.hx:3: expected RETURN", "db/queries.hx:3 does not compile: .*expected RETURN"),
        ("No .hx files found in db", "No .hx files found"),
    ],
)
def test_a_query_that_does_not_compile_is_named_with_its_line(
    said: str, message: str, bin_dir: Path, tmp_path: Path
) -> None:
    install(bin_dir / "helix", f"{THEIRS}printf '{said}\\n'; exit 1\n")
    with pytest.raises(BuildFailed, match=message):
        prepare_context(INSTANCE, tmp_path)
