"""What each generation of HelixDB's own CLI accepts, as data and a few rules.

    verdict(document, ERAS["v2.1"])   # [] if that CLI accepts the file

The shapes are those of v2.0.0, of the last v2.1, of v2.3.5 and of v3.1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from project.document import Document
from project.problems import Key, Problem
from project.shapes import (
    Choice,
    Complaint,
    Each,
    Flag,
    Map,
    Shape,
    Struct,
    Text,
    Variant,
    Whole,
    word_of,
)

Rule = Callable[[dict[str, Any]], Iterator[Complaint]]
"""What a CLI checks once the shapes are right."""


@dataclass(frozen=True)
class Era:
    """One generation of the CLI."""

    name: str
    shape: Struct
    """Of the whole file."""
    rules: tuple[Rule, ...]
    toml_1_1: bool = False
    """It reads TOML 1.1 as well."""
    largest: int = 2**127 - 1
    """The largest number it can read, even where it ignores it."""

    def complaints(self, data: dict[str, Any]) -> list[Complaint]:
        """Everything this CLI would refuse; its rules run once all shapes are right."""
        found = list(self.shape.check(data, ()))
        if not found:
            found = [complaint for rule in self.rules for complaint in rule(data)]
        return [*found, *_too_large(data, (), self.largest)]


def verdict(document: Document, era: Era) -> list[Problem]:
    """What a generation's CLI would refuse in a file; empty if it accepts it."""
    problems = [
        document.problem(
            complaint.key,
            complaint.message,
            of_value=True,
            code=f"strict-{era.name}",
            expected=complaint.expected,
        )
        for complaint in era.complaints(document.data)
    ]
    if document.toml_1_1 and not era.toml_1_1:
        problems.append(
            document.problem(
                (), "the file is TOML 1.1", code=f"strict-{era.name}", expected="TOML 1.0"
            )
        )
    return problems


# --- shapes --------------------------------------------------------------------------------------

_TEXT, _FLAG = Text(), Flag()
_U16, _U32, _U64 = Whole(16), Whole(32), Whole(64)
_BUILD_MODE = Choice(("dev", "debug", "release"))
_RUNTIME = Choice(("docker", "podman"))

_DATABASE_A: dict[str, Shape] = {
    "vector_config": Struct(
        {"m": _U32, "ef_construction": _U32, "ef_search": _U32, "db_max_size_gb": _U32}
    ),
    "graph_config": Struct({"secondary_indices": Each(_TEXT)}),
    "mcp": _FLAG,
    "bm25": _FLAG,
}
_DATABASE_B = _DATABASE_A | {
    "schema": _TEXT,
    "embedding_model": _TEXT,
    "graphvis_node_label": _TEXT,
}


def _local_v2(database: Mapping[str, Shape]) -> Shape:
    return Map(Struct({"port": _U16, "build_mode": _BUILD_MODE, **database}, flat=True))


def _cloud(database: Mapping[str, Shape], helix: Mapping[str, Shape]) -> Shape:
    fly: dict[str, Shape] = {
        "build_mode": _BUILD_MODE,
        "region": _TEXT,
        "vm_size": Choice(
            (
                "shared-cpu-4x",
                "shared-cpu-8x",
                "performance-4x",
                "performance-8x",
                "performance-16x",
                "a10",
                "a100-40gb",
                "a100-80gb",
                "l40s",
            )
        ),
        "volume": _TEXT,
        "volume_initial_size": _U16,
        "private": _FLAG,
        "auth_type": Choice(("ApiKey", "Cli")),
    }
    ecr: dict[str, Shape] = {
        "repository_name": _TEXT,
        "region": _TEXT,
        "registry_url": _TEXT,
        "auth_type": Choice(("AwsCli",)),
        "build_mode": _BUILD_MODE,
    }
    cluster: dict[str, Shape] = {"cluster_id": _TEXT, "region": _TEXT, "build_mode": _BUILD_MODE}
    return Map(
        Variant(
            {
                "helix": Struct(
                    {**cluster, **helix, **database}, frozenset({"cluster_id"}), flat=True
                ),
                "fly": Struct(
                    {**fly, **database},
                    frozenset({"vm_size", "volume", "volume_initial_size", "auth_type"}),
                    flat=True,
                ),
                "ecr": Struct(
                    {**ecr, **database},
                    frozenset({"repository_name", "region", "auth_type"}),
                    flat=True,
                ),
            }
        )
    )


_PROJECT_A: dict[str, Shape] = {"name": _TEXT, "queries": _TEXT}
_PROJECT_B = _PROJECT_A | {"container_runtime": _RUNTIME}
_PROJECT_B2 = {"id": _TEXT, **_PROJECT_B}
_PROJECT_C = {"id": _TEXT, "workspace_id": _TEXT, **_PROJECT_B}
_NAMED = frozenset({"name"})
_ENV_VARS = {"env_vars": Map(_TEXT)}

_ENTERPRISE_B2 = Struct(
    {
        "cluster_id": _TEXT,
        "availability_mode": Choice(("dev", "ha")),
        "gateway_node_type": _TEXT,
        "db_node_type": _TEXT,
        "min_instances": _U64,
        "max_instances": _U64,
        **_DATABASE_B,
    },
    frozenset({"cluster_id", "availability_mode", "gateway_node_type", "db_node_type"}),
    flat=True,
)
_ENTERPRISE_C = Struct(
    {
        "cluster_id": _TEXT,
        "workspace_id": _TEXT,
        "project_id": _TEXT,
        "gateway_url": _TEXT,
        "query_auth_header": _TEXT,
        "query_auth_env": _TEXT,
        "availability_mode": _TEXT,
        "gateway_node_type": _TEXT,
        "db_node_type": _TEXT,
        "min_instances": _U64,
        "max_instances": _U64,
        **_DATABASE_B,
    },
    frozenset({"cluster_id"}),
    flat=True,
)
_LOCAL_C = Struct(
    {
        "port": _U16,
        "image": _TEXT,
        "tag": _TEXT,
        "storage": Choice(("memory", "disk", "s3")),
        "s3": Struct(
            {
                "bucket": _TEXT,
                "prefix": _TEXT,
                "region": _TEXT,
                "endpoint_url": _TEXT,
                "allow_http": _FLAG,
            },
            frozenset({"bucket"}),
        ),
    }
)

# --- rules ---------------------------------------------------------------------------------------

_WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What Rust's `trim` removes; Python's `strip` removes more."""


def _trimmed(text: str) -> str:
    return text.strip(_WHITE_SPACE)


def _as_is(text: str) -> str:
    return text


def _name_of(data: dict[str, Any], position: int) -> str:
    """The project's name, in either way of writing the table."""
    project = data["project"]
    return str(project["name"] if isinstance(project, dict) else project[position])


def _project_name(trim: Callable[[str], str], position: int) -> Rule:
    def rule(data: dict[str, Any]) -> Iterator[Complaint]:
        if not trim(_name_of(data, position)):
            yield Complaint(("project", "name"), "Project name cannot be empty")

    return rule


def _instances(groups: tuple[str, ...], trim: Callable[[str], str]) -> Rule:
    def rule(data: dict[str, Any]) -> Iterator[Complaint]:
        if not any(data.get(group) for group in groups):
            yield Complaint((), "At least one instance must be defined")
        for group in groups:
            for name in data.get(group, {}):
                if not trim(name):
                    yield Complaint((group, name), "Instance name cannot be empty")

    return rule


def _no_debug(data: dict[str, Any]) -> Iterator[Complaint]:
    places: list[tuple[Key, dict[str, Any]]] = [
        (("local", name), table) for name, table in data.get("local", {}).items()
    ]
    for name, kinds in data.get("cloud", {}).items():
        places += [(("cloud", name, kind), table) for kind, table in kinds.items()]
    for key, table in places:
        if word_of(table.get("build_mode")) == "debug":
            yield Complaint(
                (*key, "build_mode"),
                '`build_mode = "debug"` is removed in favour of dev mode',
                "`dev` or `release`",
            )


def _cluster_ids(trim: Callable[[str], str]) -> Rule:
    def rule(data: dict[str, Any]) -> Iterator[Complaint]:
        for name, table in data.get("enterprise", {}).items():
            if not trim(table["cluster_id"]):
                key = ("enterprise", name, "cluster_id")
                yield Complaint(key, f"'{name}' must have a non-empty cluster_id")

    return rule


def _storage(data: dict[str, Any]) -> Iterator[Complaint]:
    for name, table in data.get("local", {}).items():
        key = ("local", name)
        if isinstance(table, list):
            table = dict(zip(_LOCAL_C.keys, table, strict=False))
        is_s3 = word_of(table.get("storage", "memory")) == "s3"
        if "s3" not in table:
            if is_s3:
                yield Complaint(key, f"has no [local.{name}.s3] config")
            continue
        if not is_s3:
            yield Complaint((*key, "s3"), "has s3 config but storage is not set to s3")
            continue
        s3 = table["s3"]
        if isinstance(s3, list):
            shape = _LOCAL_C.keys["s3"]
            assert isinstance(shape, Struct)
            s3 = dict(zip(shape.keys, s3, strict=False))
        for part in ("bucket", "prefix", "region"):
            if part in s3 and not _trimmed(s3[part]):
                yield Complaint((*key, "s3", part), f"the S3 {part} is empty")
        if not s3.get("endpoint_url", "http://").startswith(("http://", "https://")):
            yield Complaint(
                (*key, "s3", "endpoint_url"),
                "S3 endpoint URL must start with http:// or https://",
                "http:// or https://",
            )


def _too_large(value: Any, key: Key, largest: int) -> Iterator[Complaint]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _too_large(item, (*key, name), largest)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _too_large(item, (*key, position), largest)
    elif isinstance(value, int) and not -(2**127) <= value <= largest:
        yield Complaint(key, "number too large to fit in target type")


# --- the generations -----------------------------------------------------------------------------


def _file(**tables: Shape) -> Struct:
    return Struct(tables, frozenset({"project"}))


_V2 = (_project_name(_as_is, 0), _instances(("local", "cloud"), _as_is))

ERAS: dict[str, Era] = {
    era.name: era
    for era in (
        Era(
            "v2.0",
            _file(
                project=Struct(_PROJECT_A, _NAMED),
                local=_local_v2(_DATABASE_A),
                cloud=_cloud(_DATABASE_A, {}),
            ),
            _V2,
        ),
        Era(
            "v2.1",
            _file(
                project=Struct(_PROJECT_B, _NAMED),
                local=_local_v2(_DATABASE_B),
                cloud=_cloud(_DATABASE_B, _ENV_VARS),
            ),
            _V2,
        ),
        Era(
            "v2.3",
            _file(
                project=Struct(_PROJECT_B2, _NAMED),
                local=_local_v2(_DATABASE_B),
                cloud=_cloud(_DATABASE_B, _ENV_VARS),
                enterprise=Map(_ENTERPRISE_B2),
            ),
            (
                _project_name(_as_is, 1),
                _instances(("local", "cloud", "enterprise"), _as_is),
                _no_debug,
                _cluster_ids(_as_is),
            ),
        ),
        Era(
            "v3",
            _file(
                project=Struct(_PROJECT_C, _NAMED),
                local=Map(_LOCAL_C),
                enterprise=Map(_ENTERPRISE_C),
            ),
            (
                _project_name(_trimmed, 2),
                _instances(("local", "enterprise"), _trimmed),
                _cluster_ids(_trimmed),
                _storage,
            ),
            toml_1_1=True,
            largest=2**128 - 1,
        ),
    )
}
"""The generations that `--strict` knows, oldest first."""
