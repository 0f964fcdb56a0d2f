"""`helix export`: an evidence bundle of one deployment, to keep or to send."""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from model.errors import HelixError

if TYPE_CHECKING:
    from temporalio.client import WorkflowHistory

    from cli.session import Session
    from ledger.ledger import Ledger
    from model.audit import AuditEvent
    from model.deployment import DeploymentRecord

LOG_LINES = 500
"""How much of the release's output is taken along."""


@dataclass
class Bundle:
    """The files of a bundle; nothing comes in that was not cleaned."""

    secrets: set[str]
    files: dict[str, bytes] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """What could not be had -> why."""

    def document(self, name: str, value: Any) -> None:
        """Add a JSON document."""
        from cli.evidence import cleaned

        self.files[name] = _json(cleaned(value, self.secrets))

    def text(self, name: str, read: Callable[[], str]) -> None:
        """Add a text, or note why it is not to be had."""
        from model.redaction import redact

        try:
            self.files[name] = redact(read(), self.secrets).encode()
        except HelixError as error:
            self.lack(name, error)

    def lack(self, name: str, error: HelixError) -> None:
        """Note why a file is not there."""
        from model.redaction import redact

        self.missing[name] = redact(error.message, self.secrets)

    def write(self, path: Path, about: dict[str, Any]) -> None:
        """Write all files and their manifest, for this user's eyes only. Replaces the file whole.

        Raises:
            HelixError: it cannot be written there.
        """
        from cli.evidence import cleaned

        files = {
            name: {"sha256": sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in self.files.items()
        }
        manifest = {**about, "files": files, "missing": self.missing}
        try:
            # mkstemp: nobody else can read it, not even while it is written.
            descriptor, name = tempfile.mkstemp(prefix=".helix-", dir=path.parent)
            try:
                with (
                    os.fdopen(descriptor, "wb") as file,
                    zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle,
                ):
                    bundle.writestr("manifest.json", _json(cleaned(manifest, self.secrets)))
                    for each, data in self.files.items():
                        bundle.writestr(each, data)
                os.replace(name, path)
            except BaseException:
                os.unlink(name)
                raise
        except OSError as error:
            raise HelixError(
                f"cannot write {path}: {error.strerror}", hint="name another place: --output FILE"
            ) from None


def export(
    context: typer.Context,
    deployment: Annotated[
        str, typer.Argument(help="A deployment's id, or an instance; the last one if left out.")
    ] = "",
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write, a .zip.")
    ] = None,
    json: output.Json = False,
) -> None:
    """Write an evidence bundle: history, record, audit events, logs, configuration, versions.

    It holds no secret that this machine can read or recognise; secret references stay. What could
    not be had is named in its manifest.json, with the reason. helix replay takes the file.

    \b
    Examples:
      helix export                        the last deployment of the only instance
      helix export 3f2a9c1b -o case.zip
    """
    import asyncio

    from cli.evidence import known_secrets
    from cli.find import find_deployment
    from ledger.ledger import Ledger
    from model.names import short_id
    from worker.settings import load

    settings = load()
    ledger = Ledger(settings.ledger_url)
    record = find_deployment(ledger, deployment, ask=False if json else None)
    instance = record.request.instance
    secrets, unread = known_secrets(instance, settings.env_file(instance.key))
    bundle = Bundle(secrets)
    bundle.document("deployment.json", record.model_dump(mode="json"))
    bundle.document("instance.json", instance.model_dump(mode="json"))
    bundle.document("audit.json", [one.model_dump(mode="json") for one in _audit(ledger, record)])
    bundle.document("versions.json", _versions())
    bundle.text("build.log", lambda: _build_log(ledger, record, settings.logs_dir))
    bundle.text("release.log", lambda: _release_log(record))
    asyncio.run(_add_history(bundle, record))

    path = to or Path(f"helix-{short_id(record.deployment)}.zip")
    about = {
        "deployment": record.deployment,
        "instance": instance.key,
        "made_at": datetime.now(UTC).isoformat(),
        "secrets_not_read_here": unread,
    }
    bundle.write(path, about)
    if json:
        output.document({"file": str(path), "files": list(bundle.files), "missing": bundle.missing})
        return
    output.say(str(path))
    for name, why in bundle.missing.items():
        output.note(f"without {name}: {why}")
    for reference in unread:
        output.note(f"{reference} cannot be read here: see that its value is not in the bundle")


def _audit(ledger: Ledger, record: DeploymentRecord) -> list[AuditEvent]:
    events = ledger.trail(record.request.instance.key)
    return [one for one in events if one.deployment == record.deployment]


def _build_log(ledger: Ledger, record: DeploymentRecord, logs_dir: Path) -> str:
    from cli.logs import build_lines

    lines = build_lines(ledger, record.deployment, logs_dir, tail=None, follow=False)
    return "\n".join(lines) + "\n"


def _release_log(record: DeploymentRecord) -> str:
    """The last lines of what runs at the instance now, which may be another release."""
    from cli.platform import open_provider

    with open_provider(record.request.instance) as provider:
        return "\n".join(provider.logs(since=None, tail=LOG_LINES, follow=False)) + "\n"


async def _add_history(bundle: Bundle, record: DeploymentRecord) -> None:
    from cli.evidence import cleaned_history
    from cli.histories import MEMBER
    from cli.session import open_session

    try:
        async with open_session() as session:
            history = await _history(session, record)
    except HelixError as error:
        bundle.lack(MEMBER, error)
        return
    bundle.files[MEMBER] = cleaned_history(history.to_json(), bundle.secrets).encode()


async def _history(session: Session, record: DeploymentRecord) -> WorkflowHistory:
    from cli.follow import Run
    from cli.histories import download

    key = record.request.instance.key
    return await download(session.client, Run(record.request.workflow_id, record.deployment, key))


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    return {
        "helix-deploy": version("helix-deploy"),
        "temporalio": version("temporalio"),
        "python": sys.version.split()[0],
        "system": platform.platform(),
    }


def _json(value: Any) -> bytes:
    import json

    return json.dumps(value, indent=2, ensure_ascii=False, default=str).encode()
