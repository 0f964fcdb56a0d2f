"""cosign as the people who release images use it, and a vulnerability database of our own."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.services.need import program
from tests.services.registry import TestRegistry

ADVISORIES = {
    "leftpad": ("TEST-2026-0001", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"),  # 9.8
    "rightpad": ("TEST-2026-0002", "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:L/I:L/A:N"),  # 4.4
    "nopad": ("TEST-2026-0003", ""),
}
"""A package of PyPI -> the advisory about its versions below 2, and how bad that is."""


def tools() -> str:
    """The folders of cosign and osv-scanner, for a PATH."""
    found = [program(name, "supply-chain") for name in ("cosign", "osv-scanner")]
    return os.pathsep.join(str(Path(one).parent) for one in found)


@dataclass
class Signer:
    """Somebody who may push to the registry, and has a key pair."""

    folder: Path
    registry: TestRegistry

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        account = f"{self.registry.username}:{self.registry.password}".encode()
        auths = {self.registry.host: {"auth": base64.b64encode(account).decode()}}
        (self.folder / "config.json").write_text(json.dumps({"auths": auths}))
        self._run("generate-key-pair", "--output-key-prefix", str(self.folder / "cosign"))

    @property
    def public_key(self) -> Path:
        """The file that a policy names."""
        return self.folder / "cosign.pub"

    def sign(self, image: str) -> None:
        """Sign an image, named by its digest."""
        self._put("sign", image)

    def attach_sbom(self, image: str) -> None:
        """Attach an SBOM to it, signed."""
        sbom = self.folder / "sbom.json"
        sbom.write_text('{"bomFormat": "CycloneDX", "specVersion": "1.5", "components": []}')
        self._put("attest", image, "--type", "cyclonedx", "--predicate", str(sbom))

    def _put(self, verb: str, image: str, *words: str) -> None:
        offline = ["--tlog-upload=false", "--use-signing-config=false"]
        trust = ["--registry-cacert", str(self.registry.ca)] if self.registry.ca else []
        key = str(self.folder / "cosign.key")
        self._run(verb, "--yes", "--key", key, *words, *offline, *trust, image)

    def _run(self, *words: str) -> None:
        done = subprocess.run(
            [program("cosign", "supply-chain"), *words],
            env={**os.environ, "DOCKER_CONFIG": str(self.folder), "COSIGN_PASSWORD": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


def vulnerability_database(folder: Path) -> Path:
    """A folder for OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY, with ADVISORIES in it."""
    place = folder / "osv-scanner" / "PyPI"
    place.mkdir(parents=True)
    with zipfile.ZipFile(place / "all.zip", "w") as archive:
        for package, (id, vector) in ADVISORIES.items():
            archive.writestr(f"{id}.json", json.dumps(_advisory(package, id, vector)))
    return folder


def _advisory(package: str, id: str, vector: str) -> dict[str, object]:
    versions = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}
    affected = {"package": {"ecosystem": "PyPI", "name": package}, "ranges": [versions]}
    return {
        "schema_version": "1.6.0",
        "id": id,
        "modified": "2026-01-01T00:00:00Z",
        "published": "2026-01-01T00:00:00Z",
        "severity": [{"type": "CVSS_V3", "score": vector}] if vector else [],
        "affected": [affected],
    }


def install(context: Path, packages: dict[str, str]) -> str:
    """Put what pip leaves of some packages into a build context. Returns lines of a Dockerfile."""
    lines = []
    for name, version in packages.items():
        file = f"{name}-{version}.metadata"
        (context / file).write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        place = f"/usr/lib/python3/site-packages/{name}-{version}.dist-info/METADATA"
        lines.append(f"COPY {file} {place}")
    return "\n".join(lines) + "\n"
