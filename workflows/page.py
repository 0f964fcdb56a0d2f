"""A deployment as a page of Markdown: in the Temporal UI, and in a CI job's summary."""

from __future__ import annotations

import json

from model.deployment import Failure, Progress, Question, StepRecord, StepState

MARKS = {
    StepState.WAITING: "·",
    StepState.RUNNING: "▶",
    StepState.DONE: "✓",
    StepState.SKIPPED: "–",
    StepState.FAILED: "✗",
    StepState.CANCELLED: "✗",
}


def markdown(progress: Progress, instance: str) -> str:
    """The page. What went wrong and what is asked come first, as both are what a reader is after.

    Args:
        instance: its key.
    """
    lines = [
        f"**{instance}** release {progress.number or '?'}: **{progress.phase}**",
        *(_wrong(progress.failure) if progress.failure else ()),
        *(_asked(progress.question) if progress.question else ()),
        *(f"- **a person is needed**: {one}" for one in progress.left),
        "",
        "| | step | seconds | |",
        "|---|---|---|---|",
        *map(_row, progress.steps),
    ]
    if progress.artifact is not None:
        lines += ["", f"artifact: `{progress.artifact.short}`"]
    if progress.url:
        lines += ["", f"serves at <{progress.url}>"]
    lines.append("")
    lines += [f"- policy: {one}" for one in progress.checks]
    lines += [f"- {one.choice} by {one.by}: {one.why}" for one in progress.decisions]
    lines += [f"- undone: {one}" for one in progress.undone]
    lines += ["", "---"]  # the UI cuts off a page's end: let it be this
    return "\n".join(lines)


def _wrong(failure: Failure) -> list[str]:
    evidence = ["", "```", failure.evidence, "```"] if failure.evidence else []
    return ["", f"**failed** at {failure}", *evidence, ""]


def _asked(question: Question) -> list[str]:
    example = json.dumps({"choice": question.choices[0], "by": "you", "why": ""})
    return [
        "",
        f"**waits for an answer** ({', '.join(question.choices)}) until "
        f"{question.deadline:%Y-%m-%d %H:%M} UTC, then: {question.otherwise}",
        "",
        f"> {question.text}",
        "",
        f"Answer here: More Actions, Send a Signal, `answer`, with `{example}`; "
        "or at the command line: helix approve, reject or answer.",
        "",
    ]


def _row(record: StepRecord) -> str:
    seconds = ""
    if record.started_at and record.ended_at:
        seconds = f"{(record.ended_at - record.started_at).total_seconds():.1f}"
    detail = record.detail.splitlines()[0] if record.detail else ""
    detail = detail.replace("|", "\\|")
    return f"| {MARKS[record.state]} | {record.step} | {seconds} | {detail} |"
