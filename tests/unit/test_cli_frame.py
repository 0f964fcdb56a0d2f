"""The command's frame: what it costs to start, how it ends, and who it takes us for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from cli import main, output
from cli.actor import actor
from cli.exits import BY_CODE, BY_OUTCOME, AlreadyDeploying, Exit, Usage, exit_of
from model.deployment import Outcome
from model.errors import ConfigurationError, HelixError, Transient
from worker.errors import NoWorker, Unreachable

HEAVY = (
    "temporalio", "docker", "pydantic_settings", "rich", "sqlalchemy", "httpx", "tomlkit",
    "asyncio", "model.instance",
)  # fmt: skip
"""pydantic is not among them: Typer itself takes it to read a command line."""


@pytest.fixture
def run() -> CliRunner:
    """Runs a command in this process."""
    return CliRunner()


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["psuh"], ["push", "-h"]])
def test_help_and_typos_import_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys, cli.__main__\n"
        f"sys.argv = ['helix', *{arguments!r}]\n"
        "try:\n    cli.__main__.main()\n"
        "except SystemExit:\n"
        f"    print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_help_lists_every_command_in_order(run: CliRunner) -> None:
    text = run.invoke(main.app, ["--help"]).output
    places = [text.index(f"\n  {name} ") for name in main.COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_can_be_loaded_and_shows_an_example(run: CliRunner, name: str) -> None:
    done = run.invoke(main.app, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert f"helix {name}" in done.output


def test_a_typo_gets_the_nearest_command(run: CliRunner) -> None:
    done = run.invoke(main.app, ["psuh"])
    assert done.exit_code == Exit.USAGE
    assert "push" in done.output


def test_every_outcome_has_its_exit_code() -> None:
    assert set(BY_OUTCOME) == set(Outcome)
    assert len(set(BY_OUTCOME.values())) == len(Outcome)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Usage("?"), 2),
        (ConfigurationError("?"), 2),
        (AlreadyDeploying("?"), 5),
        (Unreachable("?"), 6),
        (NoWorker("?"), 6),
        (Transient("?"), 1),
    ],
)
def test_an_error_leads_to_its_exit_code(error: HelixError, code: int) -> None:
    assert exit_of(error) == code


def test_every_code_of_the_table_is_the_code_of_an_error() -> None:
    from cli.exits import AlreadyDeploying
    from model.errors import error_classes
    from worker.errors import NoWorker, Unreachable

    own = [AlreadyDeploying, NoWorker, Unreachable]
    assert set(BY_CODE) <= {one.code for one in [*error_classes(), *own]}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that fails in the way it is told to."""
    import types

    module = types.ModuleType("cli.broken")

    def command(how: Annotated[str, typer.Argument()] = "known", json: output.Json = False) -> None:
        """Fail. Example: helix broken"""
        if how == "known":
            raise Unreachable("nobody there", hint="look again", evidence="line 1\nline 2")
        raise ZeroDivisionError("nothing to see")

    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cli.broken", module)
    monkeypatch.setitem(main.COMMANDS, "broken", ("cli.broken:command", "Fail."))


@pytest.mark.usefixtures("broken")
def test_a_known_error_says_what_to_do(run: CliRunner) -> None:
    done = run.invoke(main.app, ["broken"])
    assert done.exit_code == Exit.UNREACHABLE
    assert done.stdout == ""
    assert "error: nobody there\nwhat to do: look again\n" in done.stderr
    assert "  | line 2" in done.stderr


@pytest.mark.usefixtures("broken")
def test_a_known_error_is_json_for_machines(run: CliRunner) -> None:
    done = run.invoke(main.app, ["broken", "--json"])
    told = json.loads(done.stdout)
    assert (told["event"], told["exit"]) == ("error", Exit.UNREACHABLE)
    assert told["error"]["code"] == "Unreachable"
    assert told["error"]["hint"] == "look again"


@pytest.mark.usefixtures("broken")
def test_a_fault_of_ours_is_one_line_and_keeps_its_traceback(
    run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("HELIX_DEBUG", raising=False)
    done = run.invoke(main.app, ["broken", "other"])
    assert done.exit_code == Exit.UNEXPECTED
    assert "error: ZeroDivisionError: nothing to see" in done.stderr
    assert "Traceback" not in done.stderr
    (kept,) = tmp_path.iterdir()
    assert str(kept) in done.stderr
    assert "Traceback" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("broken")
def test_helix_debug_shows_the_traceback(run: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIX_DEBUG", "1")
    assert "Traceback" in run.invoke(main.app, ["broken", "other"]).stderr


def test_nothing_is_coloured_off_a_terminal(
    run: CliRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    output.problem(Usage("which?", hint="this"), Exit.USAGE, machine=False)
    output.table(("name", "state"), [("a" * 200, "running")])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "a" * 200 in out


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (0.04, "0.0 s"), (-3, "0.0 s"), (9.96, "10.0 s"), (12.7, "12 s"), (75, "1 min 15 s"),
        (7500, "2 h 5 min"), (200000, "2 d"),
    ],
)  # fmt: skip
def test_durations_read_well(duration: float, text: str) -> None:
    assert output.seconds(duration) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (20_000_000, "20 MB"),
                        (3_200_000_000, "3.2 GB")],
)  # fmt: skip
def test_sizes_read_well(count: int, text: str) -> None:
    assert output.size(count) == text


def test_the_actor_is_the_ci_job_if_there_is_one() -> None:
    github = {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "acme/shop", "GITHUB_RUN_ID": "7"}
    assert actor(github) == "github:acme/shop run 7 by ?"
    gitlab = {
        "GITLAB_CI": "1",
        "CI_PROJECT_PATH": "a/b",
        "CI_JOB_ID": "9",
        "GITLAB_USER_LOGIN": "z",
    }
    assert actor(gitlab) == "gitlab:a/b job 9 by z"
    assert "@" in actor({})
