"""`helix add`: one more instance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import instances as ask
from cli import output
from cli.exits import Usage


def add(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(help="local, cloud, fly, ecr, docker, or any other kind.", metavar="KIND"),
    ] = "",
    path: Annotated[
        Path | None, typer.Option("--path", "-p", help="The folder of the project.")
    ] = None,
    name: ask.Name = "",
    region: ask.Region = "",
    auth: ask.Auth = "",
    volume_size: ask.VolumeSize = None,
    vm_size: ask.VmSize = "",
    private: ask.Private = False,
    port: ask.PortOption = None,
    disk: ask.Disk = False,
    storage_uri: ask.StorageUri = "",
    s3_region: ask.S3Region = "",
    s3_endpoint_url: ask.S3Endpoint = "",
    s3_allow_http: ask.S3AllowHttp = False,
    cluster_id: ask.ClusterId = "",
    gateway_url: ask.GatewayUrl = "",
    json: output.Json = False,
) -> None:
    """Add an instance to helix.toml. Adding it twice changes nothing.

    \b
    Examples:
      helix add local --name test --port 7070
      helix add fly --name edge --region ams
      helix add docker --name production

    \b
    Exit codes:
      0 done   2 wrong usage
    """
    from cli.project import save
    from project.document import read
    from project.find import find_file
    from project.load import kinds
    from project.problems import dotted
    from project.templates import place

    choices = ["local", "cloud", *kinds(), "enterprise"]
    if not kind:
        if not output.interactive():
            raise Usage("which kind of instance?", hint=f"one of {', '.join(choices)}")
        kind = ask.pick("Which kind of instance?", choices)
    if kind not in choices:
        from project.reading import nearest

        near = nearest(kind, choices)
        raise Usage(
            f"there is no kind «{kind}»",
            hint=f"did you mean «{near}»?" if near else f"known: {', '.join(choices)}",
        )
    kind = ask.FORMS.get(kind, kind)
    document = read(find_file(path))
    table = document.data.get("project")
    project = str(table.get("name") or "") if isinstance(table, dict) else ""
    project = project or document.path.parent.name
    asked = ask.Asked(
        name, region, auth, volume_size, vm_size, private, port, disk, storage_uri, s3_region,
        s3_endpoint_url, s3_allow_http, cluster_id, gateway_url,
    )  # fmt: skip
    changed = save(document, ask.with_instance(document, project, name or project, kind, asked))
    where = dotted(place(kind, name or project))
    if json:
        output.document({"file": str(document.path), "instance": where, "changed": changed})
    elif changed:
        output.say(f"added [{where}] to {document.path}")
    else:
        output.say(f"[{where}] is there already; nothing was changed")
