"""`helix init`: a folder becomes a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import instances as ask
from cli import output

if TYPE_CHECKING:
    from project.document import Document

SCHEMA = ".helix/helix.schema.json"
"""Where editors find the schema of the file, relative to it."""
IGNORED = (".helix/", ".env", "target/", "*.log")

_SCHEMA_HX = """\
// What there is: nodes (N::) and edges (E::).
N::User {
    name: String,
}
"""
_QUERIES_HX = """\
// What can be asked for: each query becomes POST /<its name>.
QUERY createUser(name: String) =>
    user <- AddN<User>({name: name})
    RETURN user
"""


def init(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="The folder of the project; or, as in HelixDB's CLI, cloud, ecr, fly or local.",
            metavar="[PATH|cloud|ecr|fly|local]",
        ),
    ] = "",
    cloud: Annotated[
        str,
        typer.Option("--cloud", help="A kind of cloud, or the name of an instance in one."),
    ] = "",
    path: Annotated[
        Path | None, typer.Option("--path", "-p", help="The folder of the project.")
    ] = None,
    name: ask.Name = "",
    region: ask.Region = "",
    queries_path: Annotated[
        str, typer.Option("--queries-path", "-q", help="HelixDB v2: the folder of the .hx files.")
    ] = "",
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
    template: Annotated[
        str, typer.Option("--template", "-t", hidden=True, help="Accepted for existing scripts.")
    ] = "",
    skills: Annotated[
        bool | None,
        typer.Option("--skills/--no-skills", hidden=True, help="Accepted for existing scripts."),
    ] = None,
    json: output.Json = False,
) -> None:
    """Make a helix.toml, or complete the one that is there. Doing it twice changes nothing.

    A folder with a Dockerfile becomes a project that builds it; any other one a HelixDB project.

    \b
    Examples:
      helix init                     in this folder, with [local.dev]
      helix init shop --cloud fly    also on Fly
      helix init --cloud dev         an instance «dev» in the cloud there are credentials for
      helix init fly --vm-size performance-4x

    \b
    Exit codes:
      0 done   2 wrong usage
    """
    from project.load import kinds

    form = what if what in ask.FORMS else ""
    folder = (path or Path(what if what and not form else ".")).absolute()
    asked = ask.Asked(
        name, region, auth, volume_size, vm_size, private, port, disk, storage_uri, s3_region,
        s3_endpoint_url, s3_allow_http, cluster_id, gateway_url,
    )  # fmt: skip
    project = folder.name or "helix-project"
    wanted: list[tuple[str, str]] = []
    if form == "local":
        wanted = [("local", name or "dev")]
    elif form:
        wanted = [(ask.FORMS[form], name or ("production" if form == "enterprise" else ""))]
    elif cloud in kinds():
        wanted = [(cloud, name)]
    elif cloud in ("cloud", "enterprise"):
        wanted = [(ask.FORMS[cloud], name)]
    elif cloud:
        wanted = [(_kind_there(folder, cloud) or ask.pick_cloud(cloud), cloud)]
    changed = start(folder, project, wanted, asked, queries_path)
    if json:
        output.document({"folder": str(folder), "changed": changed})
    elif not changed:
        output.say(f"{folder / 'helix.toml'} has all of it already; nothing was changed")
    else:
        for each in changed:
            output.say(f"wrote {each}")
        output.say("next: helix push")


def _kind_there(folder: Path, instance: str) -> str:
    """The kind of an instance that the project has already; empty if it has not."""
    from project.document import read
    from project.find import FILE
    from project.load import understand

    if not (folder / FILE).exists():
        return ""
    entries = understand(read(folder / FILE)).instances
    return next((e.kind for e in entries if e.name == instance and e.key[0] == "cloud"), "")


def start(
    folder: Path, name: str, wanted: list[tuple[str, str]], asked: ask.Asked, queries: str
) -> list[str]:
    """Make or complete a project.

    Args:
        name: of the project, where the file does not say.
        wanted: (kind, instance) pairs; an empty instance is called as the project.

    Returns:
        The files that were written.
    """
    from cli.project import save
    from project.document import Document, parse, read
    from project.edit import write_atomically
    from project.find import FILE
    from project.plugins import tables
    from project.schema import as_json

    file = folder / FILE
    written: list[str] = []
    exists = file.exists()
    document = read(file) if exists else parse(_first(name, folder, asked, queries).encode(), file)
    project = str(document.data.get("project", {}).get("name", name))
    named = [(kind, instance or project) for kind, instance in wanted]
    if not exists and all(instance != "dev" for _, instance in named):
        named.insert(0, ("local", "dev"))
    text = document.text
    for kind, instance in named:
        text = ask.with_instance(parse(text.encode(), file), project, instance, kind, asked)
    (folder / SCHEMA).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SCHEMA, as_json(tables()).encode())
    written += _ignore(folder / ".gitignore")
    if not exists:
        written += _queries(folder, document, asked)
    if text != document.text or not exists:
        blank = document if exists else Document(file, "", {})
        save(blank, text)
        written.append(str(file))
    return written


def _is_helix(folder: Path, asked: ask.Asked, queries: str) -> bool:
    """Whether it is to be a project of .hx files."""
    return bool(queries) or not ((folder / "Dockerfile").is_file() or asked.is_v3)


def _first(name: str, folder: Path, asked: ask.Asked, queries: str) -> str:
    from project.edit import set_value

    text = set_value(f"#:schema {SCHEMA}\n", ("project",), {"name": name})
    if _is_helix(folder, asked, queries):
        text = set_value(text, ("project", "queries"), queries or "./db/")
    return text


def _queries(folder: Path, document: Document, asked: ask.Asked) -> list[str]:
    """Give a new HelixDB project a schema and a query to start from."""
    place = document.data["project"].get("queries")
    if place is None:
        return []
    target = folder / str(place).replace("\\", "/")
    if any(target.rglob("*.hx")):
        return []
    target.mkdir(parents=True, exist_ok=True)
    files = {"schema.hx": _SCHEMA_HX, "queries.hx": _QUERIES_HX}
    for file, content in files.items():
        (target / file).write_text(content, encoding="utf-8")
    return [str(target / file) for file in files]


def _ignore(file: Path) -> list[str]:
    """Append to .gitignore what is missing in it; never replace it."""
    from project.edit import write_atomically

    old = file.read_bytes() if file.exists() else b""
    lines = {line.strip().rstrip(b"/") for line in old.splitlines()}
    missing = [name for name in IGNORED if name.encode().rstrip(b"/") not in lines]
    if not missing:
        return []
    newline = b"\r\n" if b"\r\n" in old else b"\n"
    content = old if not old or old.endswith(b"\n") else old + newline
    write_atomically(file, content + b"".join(name.encode() + newline for name in missing))
    return [str(file)]
