"""`helix views`: the lists of deployments that are worth a bookmark, as links to the Temporal UI.

Such a link opens the list by its search attributes and keeps it in the browser, under its name,
among the UI's saved views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, urlencode

import typer

from cli import output

if TYPE_CHECKING:
    from cli.session import Session

VIEWS = {
    "all": "",
    "failed": 'ExecutionStatus = "Failed"',
    "running": 'ExecutionStatus = "Running"',
    "waiting": 'ExecutionStatus = "Running" AND DeployStep STARTS_WITH "asking-"',
    "scheduled": 'DeployTrigger = "schedule"',
}
"""Name -> what it asks for besides the instance, in Temporal's list-filter language."""


@dataclass(frozen=True)
class View:
    """One list of an instance's deployments."""

    name: str
    query: str
    link: str
    """Its page in the Temporal UI; empty if there is none."""


def views(
    context: typer.Context,
    instance: Annotated[
        str, typer.Argument(help="The instance; the only one, or the only cloud one, if left out.")
    ] = "",
    json: output.Json = False,
) -> None:
    """Links to lists of an instance's deployments in the Temporal UI: all, failed, running, waiting

    Opening one keeps it among the saved views of that browser.

    \b
    Examples:
      helix views
      helix views production
    """
    import asyncio

    from cli.choose import choose
    from cli.find import key_of
    from cli.project import open_project

    project = open_project()
    key = key_of(project, choose(project, instance, ask=False if json else None))
    found = asyncio.run(_found(key))
    if json:
        output.document({"instance": key, "views": [vars(one) for one in found]})
        return
    output.table(("view", "link"), [(one.name, one.link or one.query) for one in found])
    if not found[0].link:
        output.note(
            "these are queries: temporal workflow list --query '…'; "
            "for links, set HELIX_UI_URL to the address of the Temporal UI"
        )


async def _found(key: str) -> list[View]:
    from cli.session import open_session

    async with open_session() as session:
        return views_of(session, key)


def views_of(session: Session, key: str) -> list[View]:
    """The views of one instance, given by its key."""
    base = f"{session.ui}/namespaces/{quote(session.client.namespace, safe='')}/workflows"
    found = []
    for name, wish in VIEWS.items():
        query = f'DeployInstance = "{key}"' + (f" AND {wish}" if wish else "")
        named = {"query": query, "savedQuery": f"{key}: {name}"}
        link = f"{base}?{urlencode(named, quote_via=quote)}" if session.ui else ""
        found.append(View(name, query, link))
    return found


def markdown(session: Session, key: str) -> str:
    """The same as one line for a page of the Temporal UI; empty if we do not know its address."""
    if not session.ui:
        return ""
    return "- lists: " + " · ".join(f"[{one.name}]({one.link})" for one in views_of(session, key))
