"""Loads a project: its helix.toml, its instances in the file's order, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.errors import ConfigurationError
from project import plugins
from project.config import EnterpriseTable, HelixToml, LocalTable, ProjectTable
from project.deploy import DeploySettings
from project.document import Document, read
from project.eras import ERAS
from project.find import find_file
from project.kinds import KIND_ALIASES, KINDS
from project.problems import ConfigErrors, Key, Problem, dotted
from project.reading import Forgive, fields, nearest, read_table
from project.table import Table

MOST_INSTANCES = 500
"""More than that is no project, but an attack or a mistake."""
GROUPS = ("local", "cloud", "enterprise")
"""The tables that hold instances, in the order in which a name is looked up."""


@dataclass(frozen=True)
class Entry:
    """One instance as the file has it."""

    name: str
    kind: str
    """local, a key of `KINDS`, a plug-in's kind, or enterprise; empty if it is not to be told."""
    key: Key
    """Where its table stands: ("cloud", "prod", "fly")."""
    table: Table | None
    """None if it is wrong."""
    value: dict[str, Any] = field(default_factory=dict, repr=False)
    """The table as the file has it."""
    deploy: DeploySettings = DeploySettings()
    """[deploy.<name>] alone, without the defaults of [deploy]."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with, or odd about, this instance alone."""

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine's own engine."""
        return self.kind == "local"

    @property
    def errors(self) -> list[Problem]:
        """The problems that keep this instance from being deployed."""
        return [problem for problem in self.problems if problem.severity == "error"]


@dataclass(frozen=True)
class Project:
    """A project and its instances, as its helix.toml has them."""

    document: Document
    table: ProjectTable | None
    """[project]; None if it is wrong."""
    instances: tuple[Entry, ...]
    """In the order of the file."""
    deploy: DeploySettings = DeploySettings()
    """The defaults of [deploy]."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with, or odd about, the file as a whole."""

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return self.document.path

    @property
    def folder(self) -> Path:
        """The project's folder, absolute."""
        return self.document.path.parent

    @property
    def name(self) -> str:
        """The project's name."""
        return self.table.name if self.table is not None else ""

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What a person should know and no deployment need stop for, in the file's order."""
        return tuple(p for p in self.all_problems() if p.severity == "warning")

    def all_problems(self) -> list[Problem]:
        """Everything wrong or odd, in the file's order."""
        found = [*self.problems, *(p for entry in self.instances for p in entry.problems)]
        return sorted(found, key=lambda problem: (problem.line, problem.column))

    def entry(self, name: str) -> Entry | None:
        """The instance of a name, or None. As in HelixDB's CLIs a local one wins."""
        found = [entry for entry in self.instances if entry.name == name]
        return min(found, key=lambda entry: GROUPS.index(str(entry.key[0])), default=None)


def load_project(path: Path | None = None) -> Project:
    """The project of a folder, of a file, or (None) of the current folder or one above it.

    A wrong instance does not make the others unusable: `resolve` refuses it, and
    `Project.all_problems` tells.

    Raises:
        NotFound: there is no helix.toml.
        ConfigErrors: the file cannot be read, or is wrong as a whole.
    """
    project = inspect_project(path)
    if any(problem.severity == "error" for problem in project.problems):
        raise ConfigErrors(project.problems)
    return project


def inspect_project(path: Path | None = None) -> Project:
    """As `load_project`, but gives whatever can be understood of a file that is TOML at least."""
    return understand(read(find_file(path)))


def understand(document: Document) -> Project:
    """What a parsed helix.toml says, right or wrong. Reads nothing more."""
    problems = list(_unknown_tables(document))
    forgive = _forgiver(document)
    data = document.data
    table: ProjectTable | None = None
    if "project" in data:
        table, found = read_table(ProjectTable, data["project"], ("project",), document, forgive)
        problems += found
    else:
        problems.append(
            document.problem(
                (),
                "the table [project] is missing",
                code="missing-key",
                expected="a table with the project's name",
                fix='add [project] with name = "…"',
            )
        )
    places = list(_places(document, problems))
    if len(places) > MOST_INSTANCES:
        problems.append(
            document.problem(
                places[MOST_INSTANCES][1],
                f"there are {len(places)} instances; the rest is not read",
                code="too-many",
                expected=f"at most {MOST_INSTANCES}",
            )
        )
        del places[MOST_INSTANCES:]
    names = {name for name, _ in places}
    defaults, per_instance = _deploy(document, names, problems)
    instances = tuple(
        _entry(document, name, key, per_instance.get(name, (DeploySettings(), [])), forgive)
        for name, key in places
    )
    if not instances:
        problems.append(
            document.problem(
                (),
                "there is no instance",
                code="no-instance",
                expected="a table [local.<name>], [cloud.<name>.<kind>] or [enterprise.<name>]",
                fix="run «helix add local»",
            )
        )
    return Project(document, table, instances, defaults, tuple(problems))


def kinds() -> list[str]:
    """Every kind that may stand under [cloud.<instance>], plug-ins' included."""
    return [*KINDS, *plugins.kinds()]


def _unknown_tables(document: Document) -> Iterator[Problem]:
    known = [*fields(HelixToml), "deploy"]
    for name in document.data:
        if name not in known:
            near = nearest(name, known)
            yield document.problem(
                (name,),
                "this is not known; it is kept and has no effect",
                severity="warning",
                code="unknown-key",
                fix=f"did you mean «{near}»?" if near else "",
            )


def _places(document: Document, problems: list[Problem]) -> Iterator[tuple[str, Key]]:
    """The name of every instance and where it stands, in the file's order."""
    found: list[tuple[str, Key]] = []
    for group in GROUPS:
        value = document.data.get(group, {})
        if not isinstance(value, dict):
            problems.append(
                document.problem(
                    (group,),
                    f"[{group}] is not a table of instances",
                    of_value=True,
                    code="type",
                    expected=f"[{group}.<instance>]",
                )
            )
            continue
        found += [(name, (group, name)) for name in value]
    return iter(sorted(found, key=lambda each: document.places.get(each[1], (0, 0))))


def _forgiver(document: Document) -> Forgive:
    """Tells which generations of HelixDB's CLI read a table and yet do not mind what stands at a
    key in it: because it knows another form of it, or does not look at it."""
    complaints: dict[str, set[Key]] = {}
    above: dict[str, set[Key]] = {}
    for era in ERAS.values():
        keys = {complaint.key for complaint in era.complaints(document.data) if complaint.key}
        complaints[era.name] = keys
        above[era.name] = {key[:length] for key in keys for length in range(1, len(key))}

    def forgive(place: Key) -> tuple[str, ...]:
        prefixes = {place[:length] for length in range(1, len(place) + 1)}
        return tuple(
            name
            for name, keys in complaints.items()
            if place[0] in ERAS[name].shape.keys
            and place not in above[name]
            and not prefixes & keys
        )

    return forgive


def _entry(
    document: Document,
    name: str,
    key: Key,
    deploy: tuple[DeploySettings | None, list[Problem]],
    forgive: Forgive,
) -> Entry:
    settings, problems = deploy[0], list(deploy[1])
    if not name:
        problems.append(
            document.problem(key, "the instance has no name", code="empty", expected="a name")
        )
    kind, model, key = _kind(document, key, problems)
    value: Any = document.data
    for part in key:
        value = value[part]
    table: Table | None = None
    if model is not None:
        table, found = read_table(model, value, key, document, forgive)
        problems += found
    return Entry(
        name,
        kind,
        key,
        table,
        value if isinstance(value, dict) else {},
        settings or DeploySettings(),
        tuple(problems),
    )


def _kind(
    document: Document, key: Key, problems: list[Problem]
) -> tuple[str, type[Table] | None, Key]:
    """An instance's kind, the model of its table, and where that table stands."""
    group, name = key
    if group == "local":
        return "local", LocalTable, key
    if group == "enterprise":
        return "enterprise", EnterpriseTable, key
    value = document.data["cloud"][name]
    instance = dotted(key)
    choices = ", ".join(kinds())
    if not isinstance(value, dict):
        written = value if isinstance(value, str) and value in kinds() else "<kind>"
        problems.append(
            document.problem(
                key,
                "an instance is a table",
                of_value=True,
                code="type",
                expected=f"[{instance}.<kind>]",
                fix=f"write [{instance}.{written}]",
            )
        )
        return "", None, key
    if len(value) != 1:
        told = value.get("type", value.get("kind"))
        hint = told if isinstance(told, str) and told in kinds() else "<kind>"
        problems.append(
            document.problem(
                key,
                f"there are {len(value)} keys here ({', '.join(map(str, value))})"
                if value
                else "there is no kind here",
                code="kind-count",
                expected=f"exactly one table, named for its kind: {choices}",
                fix=f"write [{instance}.{hint}]",
            )
        )
        return "", None, key
    written = str(next(iter(value)))
    kind = KIND_ALIASES.get(written, written)
    place = (*key, written)
    if kind != written:
        problems.append(
            document.problem(
                place,
                f"an old spelling of the kind «{kind}», which released HelixDB CLIs refuse",
                severity="warning",
                code="deprecated-spelling",
                fix=f"write [{instance}.{kind}]",
            )
        )
    if kind in KINDS:
        return kind, KINDS[kind], place
    if kind in plugins.kinds():
        return kind, _plugin(document, kind, place, problems), place
    near = nearest(kind.lower(), kinds())
    flat = not isinstance(value[written], dict)
    problems.append(
        document.problem(
            place,
            f"there is no kind «{written}»",
            code="unknown-kind",
            expected=f"one of {choices}",
            fix=f"put it into [{instance}.<kind>]"
            if flat
            else f"did you mean [{instance}.{near}]?"
            if near
            else "install the package that brings it",
        )
    )
    return "", None, place


def _plugin(
    document: Document, kind: str, place: Key, problems: list[Problem]
) -> type[Table] | None:
    """The model of a package's kind; None, and a problem, if the package is broken."""
    try:
        return plugins.table_of(kind)
    except ConfigurationError as error:
        problems.append(document.problem(place, error.message, code="plugin", fix=error.hint))
        return None


def _deploy(
    document: Document, names: set[str], problems: list[Problem]
) -> tuple[DeploySettings, dict[str, tuple[DeploySettings | None, list[Problem]]]]:
    """The defaults of [deploy], and the settings and problems of every [deploy.<instance>].

    A key of [deploy] that is a setting is a default; any other table is an instance's.
    """
    value = document.data.get("deploy", {})
    if not isinstance(value, dict):
        problems.append(
            document.problem(
                ("deploy",),
                "[deploy] is not a table",
                of_value=True,
                code="type",
                expected="[deploy]",
            )
        )
        return DeploySettings(), {}
    settings = {*fields(DeploySettings), *DeploySettings.ALIASES}
    of_instances = {
        name: each
        for name, each in value.items()
        if isinstance(each, dict) and name not in settings
    }
    defaults, found = read_table(
        DeploySettings,
        {name: each for name, each in value.items() if name not in of_instances},
        ("deploy",),
        document,
    )
    problems += found
    for name in sorted(settings & names):
        if name in value:
            problems.append(
                document.problem(
                    ("deploy", name),
                    f"this is the setting of that name, not the instance «{name}»",
                    severity="warning",
                    code="ambiguous",
                    fix="give the instance another name to set something for it alone",
                )
            )
    read_ones: dict[str, tuple[DeploySettings | None, list[Problem]]] = {}
    for name, each in of_instances.items():
        table, found = read_table(DeploySettings, each, ("deploy", name), document)
        if name in names:
            read_ones[name] = (table, found)
            continue
        near = nearest(name, [*names, *settings])
        problems.append(
            document.problem(
                ("deploy", name),
                f"there is no instance «{name}»",
                severity="warning",
                code="unknown-instance",
                fix=f"did you mean «{near}»?" if near else f"known: {', '.join(sorted(names))}",
            )
        )
    return defaults or DeploySettings(), read_ones
