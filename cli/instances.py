"""What `helix init` and `helix add` have in common: the options that describe a new instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.exits import Usage

if TYPE_CHECKING:
    from project.document import Document

FORMS = {
    "local": "local",
    "cloud": "helix",
    "ecr": "ecr",
    "fly": "fly",
    "enterprise": "enterprise",
}
"""What released HelixDB CLIs take after `init` and `add`, and the kinds they mean."""

Name = Annotated[str, typer.Option("--name", "-n", help="The name of the instance.")]
Region = Annotated[str, typer.Option("--region", help="The region of the cloud.")]
Auth = Annotated[str, typer.Option("--auth", help="Fly: cli or api_key.")]
VolumeSize = Annotated[
    int | None, typer.Option("--volume-size", min=0, max=65535, help="Fly: GB of the volume.")
]
VmSize = Annotated[str, typer.Option("--vm-size", help="Fly: the size of the machine.")]
Private = Annotated[bool, typer.Option("--private", help="Fly: no public address.")]
PortOption = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="Local: the port on this machine.")
]
Disk = Annotated[bool, typer.Option("--disk", help="Local HelixDB v3: keep the data on disk.")]
StorageUri = Annotated[
    str, typer.Option("--storage-uri", help="Local HelixDB v3: keep the data in s3://bucket/path.")
]
S3Region = Annotated[str, typer.Option("--s3-region", help="The region of that bucket.")]
S3Endpoint = Annotated[str, typer.Option("--s3-endpoint-url", help="A storage that is not AWS.")]
S3AllowHttp = Annotated[bool, typer.Option("--s3-allow-http", help="Allow it without TLS.")]
ClusterId = Annotated[str, typer.Option("--cluster-id", help="Helix Cloud: the cluster.")]
GatewayUrl = Annotated[str, typer.Option("--gateway-url", help="Enterprise: where queries go.")]


@dataclass(frozen=True)
class Asked:
    """The options as they were typed."""

    name: str = ""
    region: str = ""
    auth: str = ""
    volume_size: int | None = None
    vm_size: str = ""
    private: bool = False
    port: int | None = None
    disk: bool = False
    storage_uri: str = ""
    s3_region: str = ""
    s3_endpoint_url: str = ""
    s3_allow_http: bool = False
    cluster_id: str = ""
    gateway_url: str = ""

    @property
    def is_v3(self) -> bool:
        """Whether they are about a HelixDB v3."""
        return self.disk or bool(self.storage_uri)

    def values(self, kind: str) -> dict[str, Any]:
        """The keys of the kind's table that they set.

        Raises:
            Usage: an option has no such value.
        """
        values: dict[str, Any] = {}
        if kind == "local":
            values = self._local()
        elif kind == "fly":
            values = {"vm_size": self.vm_size, "volume_initial_size": self.volume_size}
            if self.auth:
                values["auth_type"] = _AUTH.get(self.auth.lower())
                if values["auth_type"] is None:
                    raise Usage(f"--auth {self.auth} is not known", hint="known: cli, api_key")
            if self.private:
                values["private"] = True
        elif kind in ("helix", "enterprise"):
            values = {"cluster_id": self.cluster_id}
            if kind == "enterprise":
                values["gateway_url"] = self.gateway_url
        return {name: value for name, value in values.items() if value not in ("", None)}

    def _local(self) -> dict[str, Any]:
        values: dict[str, Any] = {"port": self.port}
        if self.storage_uri:
            if not self.storage_uri.startswith("s3://") or not self.storage_uri[5:].strip("/"):
                raise Usage(
                    f"--storage-uri {self.storage_uri} is not understood",
                    hint="write s3://bucket/path",
                )
            bucket, _, prefix = self.storage_uri[5:].partition("/")
            s3: dict[str, Any] = {"bucket": bucket}
            s3 |= {"prefix": prefix.rstrip("/") + "/"} if prefix else {}
            s3 |= {"region": self.s3_region} if self.s3_region else {}
            s3 |= {"endpoint_url": self.s3_endpoint_url} if self.s3_endpoint_url else {}
            s3 |= {"allow_http": True} if self.s3_allow_http else {}
            values |= {"storage": "s3", "s3": s3}
        elif self.disk:
            values["storage"] = "disk"
        return values


_AUTH = {"cli": "Cli", "api_key": "ApiKey", "apikey": "ApiKey"}


def with_instance(document: Document, project: str, name: str, kind: str, asked: Asked) -> str:
    """The text with a new instance; the same text if it is there already.

    Raises:
        Usage: the name is taken by an instance of another kind.
    """
    from project.edit import set_value
    from project.load import understand
    from project.problems import dotted
    from project.templates import Wishes, new_table, place

    key = place(kind, name)
    for entry in understand(document).instances:
        if entry.name != name or entry.key[0] != key[0]:
            continue
        if entry.kind == kind:
            return document.text
        raise Usage(
            f"there is an instance «{name}» of another kind: [{dotted(entry.key)}]",
            hint="give the new one another name with --name",
        )
    values = new_table(kind, Wishes(project, name, asked.region, asked.values(kind)))
    return set_value(document.text, key, values)


def pick_cloud(instance: str) -> str:
    """The cloud that an instance is to run on: the only one there are credentials for, else the one
    a person picks.

    Raises:
        Usage: there is none or there are several, and nobody to ask.
    """
    from project.load import kinds
    from project.templates import clouds_with_credentials

    found = clouds_with_credentials()
    if len(found) == 1:
        output.note(f"«{instance}» goes to {found[0]}: the only cloud with credentials here")
        return found[0]
    choices = found or kinds()
    if not output.interactive():
        raise Usage(
            f"which cloud is «{instance}» to run on? there are credentials for "
            f"{', '.join(found) if found else 'none'}",
            hint=f"name the kind: helix init --cloud KIND --name {instance}, one of "
            f"{', '.join(kinds())}",
        )
    return pick(f"Where is «{instance}» to run?", choices)


def pick(question: str, choices: list[str]) -> str:
    """Ask a person at a terminal to pick one."""
    for number, choice in enumerate(choices, 1):
        output.note(f"  {number}  {choice}")
    while True:
        answer = typer.prompt(question, default=choices[0], err=True).strip()
        if answer.isdigit() and 1 <= int(answer) <= len(choices):
            return choices[int(answer) - 1]
        if answer in choices:
            return str(answer)
