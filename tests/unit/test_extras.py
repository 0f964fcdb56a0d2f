"""A kind's SDK is imported when the kind is used and not before; without it the kind says what to
install, and every other one works."""

from __future__ import annotations

import subprocess
import sys

import pytest

from providers.catalog import PROVIDERS
from registries.catalog import REGISTRIES

SDKS = {
    "aws": ("boto3", "botocore"),
    "gcp": ("google.cloud", "google.auth", "google.api_core", "grpc"),
    "azure": ("azure",),
    "kubernetes": ("kubernetes",),
}
"""Extra -> the packages it brings."""
ELSEWHERE = {
    "postgres": (
        "psycopg", "from ledger.database import open_engine; "
        "open_engine('postgresql+psycopg://h/d')",
    ),
    "keyring": ("keyring", "from project.secrets import resolve; resolve('keyring:a/b')"),
    "vault": ("hvac", "from project.secrets import resolve; resolve('vault:secret/a#b')"),
    "aws": ("s3fs", "from project.store import Store; Store('s3://bucket/x')"),
    "gcp": ("gcsfs", "from project.store import Store; Store('gs://bucket/x')"),
    "azure": ("adlfs", "from project.store import Store; Store('abfs://bucket/x')"),
}  # fmt: skip
"""Extra -> a package of it, and what cannot be done without that."""
HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in {hidden!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def python(code: str, *hidden: str) -> subprocess.CompletedProcess[str]:
    """Run it where these packages are not installed."""
    script = HIDE.format(hidden=hidden) + code
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


def kinds_of(extra: str) -> list[tuple[str, str]]:
    """Catalog and kind of all that need an extra."""
    catalogs = {"PROVIDERS": PROVIDERS, "REGISTRIES": REGISTRIES}
    return [
        (name, kind)
        for name, catalog in catalogs.items()
        for kind, needed in catalog.extras.items()
        if needed == extra
    ]


CATALOGS = (
    "from providers.catalog import PROVIDERS\n"
    "from registries.catalog import REGISTRIES\n"
    "from model.errors import ConfigurationError\n"
)


@pytest.mark.parametrize("extra", SDKS)
def test_a_kind_without_its_sdk_says_what_to_install(extra: str) -> None:
    needing = kinds_of(extra)
    rest = [
        (name, kind)
        for name, catalog in (("PROVIDERS", PROVIDERS), ("REGISTRIES", REGISTRIES))
        for kind in catalog.builtin
        if (name, kind) not in needing
    ]
    code = CATALOGS + (
        f"for name, kind in {rest!r}:\n"
        "    globals()[name].load(kind)\n"
        f"for name, kind in {needing!r}:\n"
        "    try:\n"
        "        globals()[name].load(kind)\n"
        "    except ConfigurationError as error:\n"
        "        print(error)\n"
        "    else:\n"
        "        print(kind, 'was loaded')\n"
    )
    done = python(code, *SDKS[extra])
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == len(needing)
    for line, (_, kind) in zip(said, needing, strict=True):
        assert f"the kind «{kind}» needs " in line
        assert f"pip install 'helix-deploy[{extra}]'" in line


def test_every_extra_that_a_kind_needs_is_looked_at() -> None:
    assert {*PROVIDERS.extras.values(), *REGISTRIES.extras.values()} <= {*SDKS}


def test_an_sdk_is_imported_only_for_its_own_kinds() -> None:
    packages = [package for each in SDKS.values() for package in each]
    code = CATALOGS + (
        "for kind in ('docker', 'fly', 'oci', 'ghcr'):\n"
        "    PROVIDERS.load(kind)\n"
        "for kind in ('docker_hub', 'fly', 'ghcr', 'oci'):\n"
        "    REGISTRIES.load(kind)\n"
        f"print([one for one in {packages!r} if one in sys.modules])\n"
        "PROVIDERS.load('aws')\n"
        "print('boto3' in sys.modules, 'google.cloud.run_v2' in sys.modules)\n"
    )
    done = python(code)
    assert done.stdout.split("\n")[:2] == ["[]", "True False"], done.stderr


@pytest.mark.parametrize("extra", ELSEWHERE)
def test_what_else_an_extra_brings_is_asked_for_by_name(extra: str) -> None:
    package, code = ELSEWHERE[extra]
    done = python(code, package)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("model.errors.ConfigurationError"), done.stderr
    assert f"pip install 'helix-deploy[{extra}]'" in last
