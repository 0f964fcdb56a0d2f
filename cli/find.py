"""Finds what a person means by an instance's name or a part of a deployment's id."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.choose import choose
from model.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    from cli.follow import Run
    from cli.session import Session
    from ledger.ledger import Ledger
    from model.deployment import DeploymentRecord
    from model.instance import Instance
    from project.load import Project


@dataclass(frozen=True)
class Known:
    """An instance of the project, and what the ledger knows of it."""

    name: str
    key: str
    instance: Instance
    """As it was released last; as helix.toml has it if it never was."""


def key_of(project: Project, name: str) -> str:
    """`Instance.key` of an instance, even of one that cannot be deployed as it stands."""
    entry = project.entry(name)
    where = f"@{socket.gethostname()}" if entry is not None and entry.is_local else ""
    return f"{project.name}/{name}{where}"


def workflow_id(key: str) -> str:
    """The lock of an instance: `DeployRequest.workflow_id`."""
    return f"deploy:{key}"


def find_instance(
    ledger: Ledger, named: str | None, folder: Path | None = None, *, ask: bool | None = None
) -> Known:
    """The instance that a command other than push is about.

    Such a command is about what runs, so what was released last counts, and not what helix.toml
    says by now.

    Args:
        ask: as for `choose`.

    Raises:
        Usage: it cannot be told which one.
        ConfigurationError: it was never released, and helix.toml is wrong about it.
    """
    from cli.project import open_project
    from project.resolve import resolve

    project = open_project(folder)
    name = choose(project, named, ask=ask)
    key = key_of(project, name)
    current = ledger.current_release(key)
    instance = current.request.instance if current else resolve(project, name)
    return Known(name, key, instance)


def meant_instance(text: str, *, ask: bool | None = None) -> str:
    """The key of the instance that a text names; empty if it must be a deployment's id.

    Args:
        text: an instance's name, a part of an id, or nothing (the only instance).

    Raises:
        Usage: nothing was typed, and there are several instances.
        NotFound, ConfigurationError: nothing was typed, and there is no project that can be read.
    """
    from cli.project import open_project

    if not text:
        project = open_project()
        return key_of(project, choose(project, None, ask=ask))
    try:
        project = open_project()
    except (NotFound, ConfigurationError):
        return ""
    return key_of(project, text) if project.entry(text) is not None else ""


def find_deployment(ledger: Ledger, text: str, *, ask: bool | None = None) -> DeploymentRecord:
    """The deployment that is meant: by the beginning of its id, or the last one of an instance.

    Raises:
        NotFound: there is none.
        Usage, ConfigurationError: as `meant_instance`.
    """
    key = meant_instance(text, ask=ask)
    if not key:
        return ledger.get(text)
    for record in ledger.history(key, limit=1):
        return record
    raise NotFound(f"{key} was never deployed", hint="run: helix push")


async def find_run(session: Session, text: str) -> Run:
    """The run that is meant: as `find_deployment`, and what runs wins over what is over.

    Raises:
        NotFound, Usage, ConfigurationError: as there.
    """
    from cli.follow import Run
    from cli.runs import running

    key = meant_instance(text)
    found = await running(session.client, workflow_id(key)) if key else None
    if found is not None:
        deployment = found.deployment
    else:
        record = find_deployment(session.ledger, text)
        key, deployment = record.request.instance.key, record.deployment
    lock = workflow_id(key)
    return Run(lock, deployment, key, session.link(lock, deployment))
