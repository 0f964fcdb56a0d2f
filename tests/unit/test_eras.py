"""What each generation of HelixDB's CLI accepts: every recorded verdict, and the rules behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.document import parse, read
from project.eras import ERAS, verdict
from project.problems import ConfigErrors

DATA = Path(__file__).parent.parent / "data" / "helix_toml"
COLUMNS = {"v2.0": "A(v2.0.0)", "v2.1": "B(2025-12-22)", "v2.3": "B2(2.3.4 src)", "v3": "C(HEAD)"}
PROJECT = '[project]\nname = "shop"\n'
LOCAL = PROJECT + "[local.dev]\n"
FLY = 'vm_size = "a10"\nvolume = "v:/data"\nvolume_initial_size = 1\nauth_type = "Cli"\n'
ECR = 'repository_name = "r"\nregion = "r"\nauth_type = "AwsCli"\n'


def recorded() -> list[tuple[str, str, bool]]:
    """(file, era, accepted) as the original parsers judged."""
    head, *rows = (DATA / "matrix" / "RESULTS.tsv").read_text().splitlines()
    columns = head.split("\t")
    return [
        (cells[0], era, cells[columns.index(column)] == "OK")
        for cells in (row.split("\t") for row in rows)
        for era, column in COLUMNS.items()
    ]


def accepts(raw: bytes, era: str) -> bool:
    """Whether an era accepts a file of these bytes."""
    try:
        return not verdict(parse(raw), ERAS[era])
    except ConfigErrors:
        return False


def accepted_by(text: str) -> str:
    """The eras that accept a text, in their order."""
    return " ".join(era for era in ERAS if accepts(text.encode(), era))


def test_every_file_of_the_matrix_has_a_recorded_verdict() -> None:
    assert {file for file, _, _ in recorded()} == {
        file.name for file in (DATA / "matrix").glob("*.toml")
    }


@pytest.mark.parametrize(("file", "era", "accepted"), recorded())
def test_a_strict_verdict_is_the_recorded_one(file: str, era: str, accepted: bool) -> None:
    assert accepts((DATA / "matrix" / file).read_bytes(), era) is accepted


@pytest.mark.parametrize(
    ("files", "eras"),
    [
        ("v2.0/A1", "v2.0 v2.1 v3"),  # debug is refused by v2.3 alone
        ("v2.0/A2", "v2.0 v2.1 v2.3 v3"),
        ("v2.0/A3 v2.0/A4", "v2.0 v2.1 v2.3"),  # v3 sees no instance
        ("v2.0/A5", "v2.0 v2.1 v2.3 v3"),
        ("v2.1/B1 v2.1/B4", "v2.0 v2.1 v2.3 v3"),
        ("v2.1/B2 v2.1/B3", "v2.0 v2.1 v2.3"),
        ("v3/C1 v3/C3", "v2.0 v2.1 v2.3 v3"),
        ("v3/C2", "v3"),
        ("v3/C4", "v2.0 v2.1 v2.3 v3"),
        ("v3/C5", "v2.0 v2.1 v3"),
    ],
)
def test_a_sample_is_accepted_by_its_own_era_and_those_it_fits(files: str, eras: str) -> None:
    for file in files.split():
        document = read(DATA / f"{file}.toml")
        assert " ".join(era for era in ERAS if not verdict(document, ERAS[era])) == eras, file


V2, ALL, NONE, V3 = "v2.0 v2.1 v2.3", "v2.0 v2.1 v2.3 v3", "", "v3"

CASES = {
    "no project": ("[local.dev]\n", NONE),
    "port beyond u16": (LOCAL + "port = 70000\n", NONE),
    "largest port": (LOCAL + "port = 65535\n", ALL),
    "hexadecimal port": (LOCAL + "port = 0x1B39\n", ALL),
    "port as a float": (LOCAL + "port = 6969.0\n", NONE),
    "port as a boolean": (LOCAL + "port = true\n", NONE),
    "kind flyio": (PROJECT + "[cloud.p.flyio]\n" + FLY, NONE),
    "kind Fly": (PROJECT + "[cloud.p.Fly]\n" + FLY, NONE),
    "kind flyio beside a local": (LOCAL + "[cloud.p.flyio]\n" + FLY, V3),
    "fly without vm_size": (PROJECT + "[cloud.p.fly]\n" + FLY.replace("vm_size", "x"), NONE),
    "fly auth cli": (PROJECT + "[cloud.p.fly]\n" + FLY.replace("Cli", "cli"), NONE),
    "fly auth ApiKey": (PROJECT + "[cloud.p.fly]\n" + FLY.replace("Cli", "ApiKey"), V2),
    "fly auth AwsCli": (PROJECT + "[cloud.p.fly]\n" + FLY.replace("Cli", "AwsCli"), NONE),
    "fly volume size beyond u16": (
        PROJECT + "[cloud.p.fly]\n" + FLY.replace("size = 1", "size = 70000"),
        NONE,
    ),
    "every vm size is a word": (
        PROJECT + "[cloud.p.fly]\n" + FLY.replace("a10", "performance-2x"),
        NONE,
    ),
    "fly debug": (PROJECT + "[cloud.p.fly]\n" + FLY + 'build_mode = "debug"\n', "v2.0 v2.1"),
    "ecr auth aws_cli": (PROJECT + "[cloud.p.ecr]\n" + ECR.replace("AwsCli", "aws_cli"), NONE),
    "ecr without registry_url": (PROJECT + "[cloud.p.ecr]\n" + ECR, V2),
    "ecr debug": (PROJECT + "[cloud.p.ecr]\n" + ECR + 'build_mode = "debug"\n', "v2.0 v2.1"),
    "unnamed local instance": (PROJECT + '[local.""]\n', NONE),
    "unnamed enterprise instance": (
        PROJECT + '[enterprise.""]\ncluster_id = "c"\n',
        NONE,
    ),
    "array of local tables": (PROJECT + "[[local]]\nport = 1\n", NONE),
    "array of project tables": ('[[project]]\nname = "s"\n[local.dev]\n', NONE),
    "array of one instance's tables": (PROJECT + "[[local.dev]]\nport = 1\n", NONE),
    "s3 without a table": (LOCAL + 'storage = "s3"\n', V2),
    "s3 without a bucket": (LOCAL + 'storage = "s3"\n[local.dev.s3]\n', V2),
    "s3 with a blank bucket": (
        LOCAL + 'storage = "s3"\n[local.dev.s3]\nbucket = " "\n',
        V2,
    ),
    "s3 over https": (
        LOCAL + 'storage = "s3"\ns3 = { bucket = "b", endpoint_url = "https://x" }\n',
        ALL,
    ),
    "disk": (LOCAL + 'storage = "disk"\n', ALL),
    "storage in capitals": (LOCAL + 'storage = "Disk"\n', V2),
    "duplicate ports": (LOCAL + "port = 1\n[local.test]\nport = 1\n", ALL),
    "CRLF": ((LOCAL + "port = 1\n").replace("\n", "\r\n"), ALL),
    "a byte order mark": ("\ufeff" + LOCAL, ALL),
    "two byte order marks": ("\ufeff\ufeff" + LOCAL, NONE),
    "a lone carriage return": (LOCAL.replace("\n", "\r"), NONE),
    "a name of spaces": ('[project]\nname = "  "\n[local.dev]\n', V2),
    "a name of an ideographic space": ('[project]\nname = "\\u3000"\n[local.dev]\n', V2),
    "Rust does not trim U+001C": ('[project]\nname = "\\u001c"\n[local.dev]\n', ALL),
    "a date for a name": ("[project]\nname = 1979-05-27\n[local.dev]\n", NONE),
    "queries as a number": ('[project]\nname = "s"\nqueries = 1\n[local.dev]\n', NONE),
    "podman in capitals": (
        '[project]\nname = "s"\ncontainer_runtime = "Podman"\n[local.dev]\n',
        "v2.0",
    ),
    "project id as a number": ('[project]\nname = "s"\nid = 1\n[local.dev]\n', "v2.0 v2.1"),
    "workspace id as a number": ('[project]\nname = "s"\nworkspace_id = 1\n[local.dev]\n', V2),
    "schema as a number": (LOCAL + "schema = 1\n", "v2.0 v3"),
    "embedding model as a number in the cloud": (
        PROJECT + '[cloud.p.helix]\ncluster_id = "c"\nembedding_model = 1\n',
        "v2.0",
    ),
    "m beyond u32": (LOCAL + "vector_config = { m = 4294967296 }\n", V3),
    "largest m": (LOCAL + "vector_config = { m = 4294967295 }\n", ALL),
    "bm25 as text": (LOCAL + 'bm25 = "no"\n', V3),
    "indices of numbers": (LOCAL + "graph_config = { secondary_indices = [1] }\n", V3),
    "the database's table does not exist": (LOCAL + '[local.dev.db]\nmcp = "x"\n', ALL),
    "a positional table": (LOCAL + "vector_config = [1, 2, 3, 4]\n", ALL),
    "a positional table too long": (LOCAL + "vector_config = [1, 2, 3, 4, 5]\n", V3),
    "a positional instance": (PROJECT + "[local]\ndev = [6969]\n", V3),
    "a word as a table": (LOCAL + "build_mode = { release = {} }\n", ALL),
    "debug as a table": (LOCAL + "build_mode = { debug = {} }\n", "v2.0 v2.1 v3"),
    "local of text": (PROJECT.replace("[project]", "local = 'x'\n[project]"), NONE),
    "cloud of text": ("cloud = 'x'\n" + LOCAL, V3),
    "enterprise of text": ("enterprise = 'x'\n" + LOCAL, "v2.0 v2.1"),
    "enterprise of v2.3": (
        PROJECT + '[enterprise.e]\ncluster_id = "c"\navailability_mode = "ha"\n'
        'gateway_node_type = "g"\ndb_node_type = "d"\n',
        "v2.3 v3",
    ),
    "enterprise of v2.3 with an unknown mode": (
        PROJECT + '[enterprise.e]\ncluster_id = "c"\navailability_mode = "both"\n'
        'gateway_node_type = "g"\ndb_node_type = "d"\n',
        V3,
    ),
    "a blank cluster in v2.3": (
        PROJECT + '[enterprise.e]\ncluster_id = " "\navailability_mode = "ha"\n'
        'gateway_node_type = "g"\ndb_node_type = "d"\n',
        "v2.3",
    ),
    "negative instances": (
        PROJECT + '[enterprise.e]\ncluster_id = "c"\nmin_instances = -1\n',
        NONE,
    ),
    "u64 instances": (
        PROJECT + '[enterprise.e]\ncluster_id = "c"\nmin_instances = 18446744073709551615\n',
        V3,
    ),
    "an unreadable number anywhere": (LOCAL + f"zzz = {10**39}\n", NONE),
    "a number of 128 bits": (LOCAL + f"zzz = {2 * 10**38}\n", V3),
    "TOML 1.1: a trailing comma": ("project = { name = 's', }\nlocal = { dev = {} }\n", V3),
    "TOML 1.1: lines in an inline table": (
        "project = {\n  name = 's' # the shop\n}\nlocal = { dev = {} }\n",
        V3,
    ),
    "TOML 1.1: escapes": ('[project]\nname = "\\x41\\e"\n[local.dev]\n', V3),
    "no cloud kind beside a local": (LOCAL + "[cloud.p]\n", V3),
    "nothing": ("", NONE),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rules_behind_the_verdicts(case: str) -> None:
    text, eras = CASES[case]
    assert accepted_by(text) == eras


def test_a_refusal_says_where_and_what_was_expected() -> None:
    document = read(DATA / "matrix" / "i20_fly_vm_1x.toml")
    (problem,) = verdict(document, ERAS["v2.1"])
    assert (problem.line, problem.column) == (6, 11)
    assert problem.key == "cloud.prod.fly.vm_size"
    assert "`performance-4x`" in problem.expected


def test_all_refusals_come_at_once() -> None:
    text = PROJECT + '[local.dev]\nport = "1"\nmcp = 1\n[cloud.p.fly]\nvm_size = "big"\n'
    keys = [problem.key for problem in verdict(parse(text.encode()), ERAS["v2.0"])]
    assert keys == ["local.dev.port", "local.dev.mcp", "cloud.p.fly.vm_size"] + ["cloud.p.fly"] * 3
