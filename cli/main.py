"""The `helix` command: which commands there are, and how every one of them ends.

A command's module is imported when the command is used, and not before: `helix --help` and a typo
cost no more than Python and Typer.
"""

from __future__ import annotations

import os
import sys
from collections import UserDict
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from worker import tracing

if TYPE_CHECKING:
    from model.errors import HelixError

COMMANDS = {
    "plan": ("cli.plan:plan", "What a push would change. Changes nothing."),
    "push": ("cli.push:push", "Deploy an instance: build, push, release, check."),
    "status": ("cli.status:status", "What runs, and what is being deployed."),
    "stats": ("cli.stats:stats", "Success rate, times and causes, against the goals."),
    "history": ("cli.history:history", "Earlier deployments and releases."),
    "views": ("cli.views:views", "Links to lists of deployments in the Temporal UI."),
    "logs": ("cli.logs:logs", "What the running release, or a build, printed."),
    "follow": ("cli.follow:follow", "Watch a deployment that is already running."),
    "rollback": ("cli.rollback:rollback", "Go back to an earlier release."),
    "promote": ("cli.promote:promote", "Deploy what one instance runs to another, unbuilt."),
    "retry": ("cli.retry:retry", "Continue a failed deployment where it failed."),
    "replay": ("cli.replay:replay", "Run a deployment's workflow again from its history."),
    "export": ("cli.export:export", "Write all that is known of a deployment to a file."),
    "cancel": ("cli.cancel:cancel", "Stop a running deployment and undo it."),
    "approve": ("cli.answer:approve", "Let a release that waits for approval go on."),
    "reject": ("cli.answer:reject", "Refuse a release that waits for approval."),
    "answer": ("cli.answer:answer", "Say what becomes of a deployment whose step failed."),
    "destroy": ("cli.destroy:destroy", "Remove an instance from where it runs."),
    "schedule": ("cli.schedule:app", "Deploy an instance by itself, at set times."),
    "up": ("cli.up:up", "Start the embedded Temporal server and a worker."),
    "down": ("cli.down:down", "Stop them."),
    "worker": ("cli.worker:worker", "Work for a Temporal server that is configured."),
    "codec-server": (
        "cli.codec_server:codec_server",
        "Show encrypted payloads in the Temporal UI.",
    ),
    "audit": ("cli.audit:app", "Who did what: list it, see that it is whole, take it along."),
    "doctor": ("cli.doctor:doctor", "See what is wrong on this machine."),
    "init": ("cli.init:init", "Make a folder a project."),
    "add": ("cli.add:add", "Add an instance to helix.toml."),
    "set": ("cli.set:set_", "Set one key of helix.toml."),
    "remove": ("cli.remove:remove", "Remove an instance from helix.toml."),
    "validate": ("cli.validate:validate", "Say all that is wrong with helix.toml."),
    "config": ("cli.config:config", "Get back what another CLI dropped from helix.toml."),
}
"""Command -> where it is defined, and its line in `helix --help`. In the order of the help."""


SERVERS = {"worker", "codec-server"}
"""Commands that go on and on: no trace is about all they do."""


def load(name: str, target: str) -> Any:
    """Import one command (a function) or group of commands (a Typer) and make it runnable."""
    module, _, attribute = target.partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name)(found)
        found = alone
    command = typer.main.get_command(found)
    command.name = name
    return command


class LazyCommands(UserDict[str, Any]):
    """A mapping of commands that imports one when it is looked up, not when it is listed."""

    def __getitem__(self, name: str) -> Any:
        return load(name, COMMANDS[name][0])


class LazyGroup(TyperGroup):
    """The top of the command tree."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands(COMMANDS)

    def list_commands(self, ctx: Any) -> list[str]:
        """All commands, in the table's order."""
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: Any) -> Any:
        """Run the command; whatever it raises ends as a sentence and a documented exit code."""
        from model.errors import HelixError

        try:
            return super().invoke(ctx)
        except HelixError as error:
            fail(ctx, error)
        except Exception as error:
            # What the command line itself raises (wrong usage, exit, a closed pipe) is its own.
            if type(error).__module__.startswith(("typer", "click")) or isinstance(
                error, BrokenPipeError
            ):
                raise
            crash(ctx, error)


def fail(ctx: Any, error: HelixError) -> NoReturn:
    """End with an error that we understand."""
    from cli.exits import exit_of
    from cli.output import for_machines, problem

    code = exit_of(error)
    problem(error, code, for_machines(ctx))
    raise typer.Exit(code)


def crash(ctx: Any, error: Exception) -> NoReturn:
    """End with an error that nobody foresaw: one line, and the traceback in a private file."""
    import tempfile
    import traceback

    from cli.exits import Exit
    from cli.output import for_machines, problem
    from model.errors import HelixError

    text = "".join(traceback.format_exception(error))
    if os.environ.get("HELIX_DEBUG"):
        typer.echo(text, err=True)
        hint = "this is a fault in Helix Deploy itself; the traceback is above"
    else:
        descriptor, path = tempfile.mkstemp(prefix="helix-", suffix=".traceback.txt")
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        hint = f"this is a fault in Helix Deploy itself; report it with {path}"
    message = f"{type(error).__name__}: {error}".splitlines()[0]
    problem(HelixError(message, hint=hint), Exit.UNEXPECTED, for_machines(ctx))
    raise typer.Exit(Exit.UNEXPECTED)


app = typer.Typer(
    cls=LazyGroup,
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"helix-deploy {version('helix-deploy')}")
        raise typer.Exit


@app.callback()
def helix(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Get a project with a helix.toml running and healthy, or leave what ran before as it was.

    \b
    Start here:
      helix push              deploy the only instance, or the only cloud one
      helix status            what runs now
      helix rollback          back to the release before
    """


def run() -> int:
    """Run the command that `sys.argv` names, as the root of a trace if traces are wanted. Returns
    its exit code."""
    if not tracing.wanted() or not SERVERS.isdisjoint(sys.argv[1:2]):
        return _run()
    from cli.traced import command

    with command(sys.argv[1:], list(COMMANDS)) as ended:
        code = _run()
        ended(code)
    return code


def _run() -> int:
    called = os.path.basename(sys.argv[0])
    try:
        app(prog_name=called if called.startswith("helix") else "helix")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0
