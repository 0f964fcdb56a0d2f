"""Looks for known vulnerabilities in an image of the engine, with osv-scanner (v2).

Its database is the one of osv.dev, asked over the network; or a folder, where the worker sets
OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY: then nothing but that folder is asked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.client import engine
from model.errors import ConfigurationError, PlatformUnhealthy, Transient
from model.policy import Severity

PROGRAM = "osv-scanner"
DATABASE = "OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY"
SECONDS = 600.0
CHUNK = 1 << 20
CLEAN, VULNERABLE, NOTHING_TO_SCAN = 0, 1, 128
"""How the program ends when it could do its work."""


@dataclass(frozen=True)
class Finding:
    """One vulnerability of one package."""

    ids: tuple[str, ...]
    package: str
    severity: Severity
    score: str
    """CVSS; empty if nobody has scored it."""

    def __str__(self) -> str:
        how_bad = self.severity.value if self.score else "unscored"
        return f"{how_bad} {self.ids[0]} in {self.package}"


@dataclass(frozen=True)
class Report:
    """What a scan found."""

    findings: tuple[Finding, ...]
    recognised: bool = True
    """False: the image holds no package of a kind the scanner knows."""


def require() -> str:
    """Where the program is.

    Raises:
        ConfigurationError: it, or the database it is to use, is not on this worker.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise ConfigurationError(
            "the policy needs osv-scanner, which is not on the worker's PATH",
            hint="install it there: https://google.github.io/osv-scanner/installation, or "
            "go install github.com/google/osv-scanner/v2/cmd/osv-scanner@v2.2.4",
        )
    folder = os.environ.get(DATABASE)
    if folder and not Path(folder, PROGRAM).is_dir():
        raise ConfigurationError(
            f"the policy needs a vulnerability database, and {DATABASE} ({folder}) has none",
            hint=f"fill it on a machine with a network: {PROGRAM} scan image IMAGE "
            "--offline-vulnerabilities --download-offline-databases; or unset the variable",
        )
    return found


def scan(reference: str, beat: Callable[[str], None]) -> Report:
    """Scan an image that the engine has.

    Args:
        beat: told what is going on, several times a second; what it raises ends the scan.

    Raises:
        NotFound: the engine does not have it.
        ConfigurationError: the scanner or its database is missing.
        Transient, PlatformUnhealthy: the engine or the database does not answer.
    """
    program = require()
    with tempfile.TemporaryDirectory(prefix="helix-scan-") as folder:
        archive = Path(folder, "image.tar")
        _save(reference, archive, beat)
        return _report(program, archive, beat)


def _save(reference: str, archive: Path, beat: Callable[[str], None]) -> None:
    try:
        with engine(timeout=300) as client, archive.open("wb") as file:
            for chunk in client.images.get(reference).save(chunk_size=CHUNK):
                file.write(chunk)
                beat(f"reading {reference}")
    except OSError as error:
        raise PlatformUnhealthy(
            f"the image cannot be written out for its scan: {error.strerror}",
            hint="give the worker a larger temporary folder: TMPDIR",
        ) from None


def _report(program: str, archive: Path, beat: Callable[[str], None]) -> Report:
    words = [program, "scan", "image", "--archive", "--format", "json", "--verbosity", "error"]
    words += ["--offline"] if os.environ.get(DATABASE) else []
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        subprocess.Popen([*words, str(archive)], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        as process,
    ):  # fmt: skip
        try:
            _attend(process, beat)
        finally:
            process.kill()
        for stream in (out, err):
            stream.seek(0)
        said = err.read()
        if process.returncode == NOTHING_TO_SCAN:
            return Report((), recognised=False)
        if process.returncode not in (CLEAN, VULNERABLE):
            raise _failure(said)
        return Report(tuple(_findings(json.loads(out.read() or "{}"))))


def _attend(process: subprocess.Popen[bytes], beat: Callable[[str], None]) -> None:
    for _ in range(int(SECONDS / 0.25)):
        try:
            process.wait(0.25)
            return
        except subprocess.TimeoutExpired:
            beat("looking for vulnerabilities")
    raise Transient(f"the scan did not end within {SECONDS:.0f} s")


def _findings(report: dict[str, Any]) -> Iterator[Finding]:
    for result in report.get("results") or ():
        for entry in result.get("packages") or ():
            package = entry["package"]
            for group in entry.get("groups") or ():
                score = str(group.get("max_severity") or "")
                yield Finding(
                    ids=tuple(dict.fromkeys([*group["ids"], *(group.get("aliases") or ())])),
                    package=f"{package['name']} {package.get('version', '')}".strip(),
                    severity=Severity.of(float(score or 0)),
                    score=score,
                )


def _failure(said: str) -> Exception:
    last = " ".join(said.strip().splitlines()[-1:])[:300] or "it says nothing"
    if re.search(r"no offline version|could not load db", said):
        return ConfigurationError(
            f"the vulnerability database lacks what this image needs: {last}",
            hint=f"fill the folder of {DATABASE} for the image's packages",
        )
    return Transient(f"osv-scanner failed: {last}")
