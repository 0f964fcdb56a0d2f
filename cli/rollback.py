"""`helix rollback`: an earlier release becomes the running one again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.launch import Detach, Reason, Replace, Wish, Yes, deploy, details

if TYPE_CHECKING:
    from ledger.ledger import Ledger
    from model.deployment import DeploymentRecord, DeployRequest


def rollback(
    context: typer.Context,
    release: Annotated[
        str, typer.Argument(help="The release's number (4 or v4); the one before if left out.")
    ] = "",
    instance: Annotated[
        str,
        typer.Option("--instance", "-i", help="The instance; the only one if left out."),
    ] = "",
    detach: Detach = False,
    replace: Replace = False,
    reason: Reason = "",
    yes: Yes = False,
    json: output.Json = False,
) -> None:
    """Go back to an earlier release: its artifact and its configuration, as they were.

    Nothing is built or pushed, so it takes seconds. It is a deployment like any other, and undone
    like any other if that release is not healthy any more. Data is not touched.

    \b
    Examples:
      helix rollback                        the release before the current one
      helix rollback v3                     release 3
      helix rollback 3 --instance staging
    """
    from cli.actor import actor
    from cli.find import find_instance
    from ledger.ledger import Ledger
    from worker.settings import load

    ledger = Ledger(load().ledger_url)
    key = find_instance(ledger, instance, ask=False if yes or json else None).key
    target = wanted(ledger, key, release)
    output.note(f"going back to release {target.number} of {key}")
    request = back_to(target, actor(os.environ), reason)
    deploy(request, Wish(replace, detach, json, details(request)))


def wanted(ledger: Ledger, key: str, release: str) -> DeploymentRecord:
    """The release to go back to.

    Without a number: the newest one that runs something else than the current one. After a rollback
    to release 3 that is the one before 3, and not the one that was just left.

    Raises:
        Usage: `release` is no number.
        NotFound: there is no such release any more.
    """
    from cli.exits import Usage
    from model.errors import NotFound

    if release:
        digits = release.lower().removeprefix("v")
        if not digits.isdecimal():
            raise Usage(f"«{release}» is not a release", hint="give its number: helix history")
        return ledger.find_release(key, int(digits))
    releases = ledger.releases(key)
    if releases:
        current = releases[0]
        origin = _origin(current, {one.number: one for one in releases})
        for one in releases[1:]:
            if one.number < origin and _content(one) != _content(current):
                return one
    raise NotFound(
        f"{key} has no earlier release to go back to",
        hint="see helix history, and name one: helix rollback NUMBER",
    )


def _origin(record: DeploymentRecord, known: dict[int, DeploymentRecord]) -> int:
    """The number under which what a release runs was first released."""
    while record.request.of_release:
        older = known.get(record.request.of_release)
        if older is None:
            return record.request.of_release
        record = older
    return record.number


def _content(record: DeploymentRecord) -> tuple[str, str]:
    artifact = record.progress.artifact
    return artifact.identity if artifact else "", record.request.instance.config_digest


def back_to(target: DeploymentRecord, actor: str, reason: str) -> DeployRequest:
    """The request that makes a release the running one again, exactly as it was."""
    from model.deployment import DeployRequest, Trigger

    return DeployRequest(
        instance=target.request.instance,
        artifact=target.progress.artifact,
        pushed=True,
        trigger=Trigger.ROLLBACK,
        actor=actor,
        reason=reason,
        of_release=target.number,
    )
