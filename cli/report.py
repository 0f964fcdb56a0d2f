"""What a CI job keeps of a deployment: a page for people, and values for its next steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cli.follow import Run
    from cli.watch import Ended

Report = Annotated[
    str,
    typer.Option(
        "--report", metavar="FILE", help="Append how it went, as Markdown: $GITHUB_STEP_SUMMARY."
    ),
]
Result = Annotated[
    str,
    typer.Option(
        "--result",
        metavar="FILE",
        help="Append outcome, deployment, release, image and url as NAME=VALUE: $GITHUB_OUTPUT.",
    ),
]


@dataclass(frozen=True)
class Keep:
    """The files that a job wants written; empty: not that one."""

    report: str = ""
    result: str = ""

    def check(self) -> None:
        """See that the files can be written, before anything is deployed.

        Raises:
            ConfigurationError: one cannot.
        """
        from model.errors import ConfigurationError

        for option, file in (("--report", self.report), ("--result", self.result)):
            if not file:
                continue
            try:
                Path(file).open("a").close()
            except OSError as error:
                raise ConfigurationError(
                    f"{option} {file} cannot be written: {error.strerror}",
                    hint="name a file in a folder that is there",
                ) from None

    def write(self, ended: Ended, run: Run) -> None:
        """Append what was asked for."""
        if self.report:
            _append(self.report, page(ended, run))
        if self.result:
            _append(
                self.result, "".join(f"{name}={value}\n" for name, value in values(ended).items())
            )


def page(ended: Ended, run: Run) -> str:
    """How the deployment went, for people (Markdown)."""
    from model.deployment import Progress
    from workflows.page import markdown

    progress = ended.progress or Progress(phase=ended.outcome, failure=ended.failure)
    link = f"[the whole story]({run.link})\n" if run.link else ""
    return f"## {run.instance}\n\n{markdown(progress, run.instance)}\n\n{link}\n"


def values(ended: Ended) -> dict[str, str]:
    """What the next steps of a job may want to know; one line each."""
    progress = ended.progress
    artifact = progress.artifact if progress else None
    found = {
        "outcome": ended.outcome,
        "deployment": ended.deployment,
        "release": str(progress.number or "") if progress else "",
        "image": artifact.short if artifact else "",
        "url": progress.url if progress else "",
    }
    return {name: value.replace("\n", " ") for name, value in found.items()}


def _append(file: str, text: str) -> None:
    with Path(file).open("a", encoding="utf-8") as target:
        target.write(text)
