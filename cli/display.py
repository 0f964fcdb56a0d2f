"""Shows a deployment while it goes on: a live table, plain lines, or JSON lines.

All three show the same events. Which one is used follows from who reads: a terminal, a file, or a
program.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cli import output
from cli.watch import Attempt, Beat, Ended, Event, Stalled, Started, StepChanged, Turned
from model.deployment import Outcome, StepState
from model.instance import Step
from model.names import short_id

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

MARKS = {
    StepState.WAITING: ("·", "dim"),
    StepState.RUNNING: ("…", "cyan"),
    StepState.DONE: ("✓", "green"),
    StepState.SKIPPED: ("-", "dim"),
    StepState.FAILED: ("✗", "red"),
    StepState.CANCELLED: ("✗", "yellow"),
}
PHASES = {
    "baking": "it has the traffic and is watched for a while",
    "checking-policy": "may it run? holding the image to the policy",
    "releasing": "healthy, so it gets the traffic",
    "cancelling": "cancelling",
    "rolling-back": "rolling back",
}


def said_of(phase: str) -> str:
    """A phase, in words."""
    if phase == "asking-approval":
        return "waits for approval: helix approve, or helix reject"
    if phase.startswith("asking-"):
        step = phase.removeprefix("asking-")
        return f"{step} failed, what now? helix answer retry, or roll-back"
    return PHASES.get(phase, phase)


class Display:
    """Where events go. A context manager: what it draws is tidied up when it ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def show(self, event: Event) -> None:
        """Show one event."""
        raise NotImplementedError


def display_for(machine: bool) -> Display:
    """The display that suits whoever reads the standard output."""
    if machine:
        return JsonLines()
    return LiveTable() if sys.stdout.isatty() else Lines()


class JsonLines(Display):
    """One JSON object per event and line, as docs/cli-events.md describes them."""

    def show(self, event: Event) -> None:
        """Print the event's fields; those without a value are left out."""
        output.line(event.model_dump(mode="json", exclude_none=True))


class Lines(Display):
    """One sentence per event; progress within an attempt is left out."""

    def show(self, event: Event) -> None:
        """Print the event, if it is worth a line."""
        text = sentence(event)
        if text:
            output.say(text)
            sys.stdout.flush()


def sentence(event: Event) -> str:
    """An event in one line; empty if it is not worth one."""
    match event:
        case Started():
            return opening(event)
        case StepChanged(state=StepState.RUNNING):
            return f"{event.step}: started"
        case StepChanged():
            took = f" in {output.seconds(event.seconds)}" if event.seconds else ""
            return f"{event.step}: {event.state}{took}{_colon(event.detail)}"
        case Attempt():
            return f"{event.step}: {trouble(event)}"
        case Turned():
            return f"{said_of(event.phase)}{_colon(event.reason)}"
        case Stalled(what=""):
            return "goes on"
        case Stalled():
            return stalled(event)
        case _:
            return ""


def opening(event: Started) -> str:
    """What is being deployed, by whom, and where to look at it."""
    who = f" by {event.actor}" if event.actor else ""
    link = f"\n{event.link}" if event.link else ""
    return (
        f"{event.trigger} of {event.instance}{who}, deployment {short_id(event.deployment)}{link}"
    )


def trouble(event: Attempt) -> str:
    """Why there is another attempt, and when."""
    when = "running"
    if event.next_at is not None:
        left = (event.next_at - datetime.now(UTC)).total_seconds()
        when = f"next in {output.seconds(left)}" if left > 0 else "next now"
    return f"attempt {event.attempt}, {_first_line(event.failure.message)}, {when}"


def stalled(event: Stalled) -> str:
    """What does not answer, and what to do about it."""
    hint = "; the deployment waits and loses nothing"
    return f"{event.detail}{hint}; see: helix doctor"


class LiveTable(Display):
    """The six steps as rows that change in place."""

    def __init__(self) -> None:
        self._rows = dict.fromkeys(Step, StepState.WAITING)
        self._changed: dict[Step, StepChanged] = {}
        self._attempt: dict[str, Attempt] = {}
        self._beat: dict[str, Beat] = {}
        self._phase = ""
        self._stalled = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(get_renderable=self._draw, console=output.console(), refresh_per_second=8)
        self._live.start()
        return self

    def __exit__(self, *about: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Take the event in; it is drawn at the next refresh."""
        match event:
            case Started():
                assert self._live is not None
                self._live.console.print(opening(event), soft_wrap=True)
            case StepChanged():
                self._rows[event.step] = event.state
                self._changed[event.step] = event
                self._forget(event.step)
            case Attempt():
                self._attempt[event.step] = event
                self._beat.pop(event.step, None)
            case Beat():
                self._beat[event.step] = event
            case Turned():
                self._phase = said_of(event.phase)
            case Stalled():
                self._stalled = stalled(event) if event.what else ""
            case Ended():
                self._end(event)

    def _forget(self, step: str) -> None:
        self._attempt.pop(step, None)
        self._beat.pop(step, None)

    def _end(self, event: Ended) -> None:
        self._phase = self._stalled = ""
        self._attempt.clear()
        self._beat.clear()
        for record in event.progress.steps if event.progress else ():
            self._rows[record.step] = record.state
            known = self._changed.get(record.step)
            if known is not None and not known.detail:
                self._changed[record.step] = known.model_copy(update={"detail": record.detail})

    def _draw(self) -> Table:
        from rich.table import Table

        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(min_width=12)
        table.add_column(justify="right", min_width=10)
        table.add_column(overflow="ellipsis", no_wrap=True)
        for step, state in self._rows.items():
            table.add_row(*self._row(step, state))
        if self._phase:
            others = [name for name in (*self._attempt, *self._beat) if name not in self._rows]
            table.add_row("", "", "", _styled(self._phase, "yellow"))
            if others:
                table.add_row("", "", "", self._doing(others[-1]))
        if self._stalled:
            table.add_row(_styled("!", "yellow"), "", "", _styled(self._stalled, "yellow"))
        return table

    def _row(self, step: Step, state: StepState) -> tuple[Any, Any, Any, Any]:
        from rich.spinner import Spinner

        mark, style = MARKS[state]
        change = self._changed.get(step)
        if change is None:
            return _styled(mark, style), _styled(step, style), "", ""
        if state is StepState.RUNNING:
            took = (datetime.now(UTC) - change.at).total_seconds()
            return Spinner("dots", style=style), step, output.seconds(took), self._doing(step)
        took_text = output.seconds(change.seconds) if change.seconds else ""
        detail = _first_line(change.detail)
        return _styled(mark, style), _styled(step, style), took_text, _styled(detail, "dim")

    def _doing(self, step: str) -> Any:
        """How far the running attempt is, or why the last one failed."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        beat, attempt = self._beat.get(step), self._attempt.get(step)
        if beat is None:
            return _styled(trouble(attempt), "yellow") if attempt else ""
        if not beat.of:
            return _styled(_first_line(beat.text), "dim")
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=beat.of, completed=beat.done, width=24)
        grid.add_row(bar, f"{output.size(beat.done)} of {output.size(beat.of)}", beat.text)
        return grid


def conclusion(event: Ended, instance: str, link: str) -> None:
    """The last words about a deployment: how it ended, why, and what to do now."""
    progress = event.progress
    took = output.seconds(event.seconds)
    number = f" release {progress.number}" if progress and progress.number else ""
    if event.outcome == Outcome.SUCCEEDED:
        where = f" serves at {progress.url}" if progress and progress.url else " runs"
        output.say(f"{instance}:{number}{where} (took {took})")
        return
    failure = event.failure
    if failure is not None:
        step = f"{failure.step} failed: " if failure.step else ""
        output.note(f"error: {step}{failure.message}")
        if failure.hint:
            output.note(f"what to do: {failure.hint}")
        if failure.request_id:
            output.note(f"request: {failure.request_id}")
        for text in failure.evidence.splitlines():
            output.note(f"  | {text}")
    output.note(f"{instance}:{number} {OUTCOMES.get(event.outcome, event.outcome)} (took {took})")
    for text in progress.undone if progress else ():
        output.note(f"  undone: {text}")
    for text in progress.left if progress else ():
        output.note(f"  not undone, a person is needed: {text}")
    if event.outcome == Outcome.ROLLED_BACK:
        output.note(f"go on where it failed: helix retry {short_id(event.deployment)}")
    if link:
        output.note(f"the whole story: {link}")


OUTCOMES = {
    Outcome.ROLLED_BACK: "was rolled back: what ran before still runs",
    Outcome.CANCELLED: "was cancelled and rolled back: what ran before still runs",
    Outcome.NEEDS_ATTENTION: "needs attention: it could not be undone completely",
    "lost": "was ended from outside, without its rollback",
}


def _styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style=style, overflow="ellipsis", no_wrap=True)


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""


def _colon(text: str) -> str:
    return f": {_first_line(text)}" if text else ""
