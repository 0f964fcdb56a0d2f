"""Builds through the engine's API alone, with its BuildKit.

The engine answers this call without the session that a CLI would hold open. So there are no build
secrets, and base images are fetched beforehand: BuildKit would ask for credentials and find nobody
there («no active sessions»).
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, ClassVar
from uuid import uuid4

import requests

from builders.base import Builder, BuildJob
from builders.client import describe, engine, translated
from builders.dockerfile import Dockerfile
from builders.images import pull
from builders.output import Output, attended
from builders.trace import lines_of
from model.errors import BuildFailed, ConfigurationError


class EngineBuilder(Builder):
    """The engine's `POST /build` with BuildKit."""

    name: ClassVar[str] = "engine"
    version: ClassVar[str] = "2"
    """The engine's number for the builder behind the call."""

    def __init__(self, features: frozenset[str] = frozenset()) -> None:
        self.features = features

    @classmethod
    def probe(cls) -> EngineBuilder | None:
        """See `Builder.probe`."""
        features = describe().features
        # A frontend image would have to be fetched with credentials as well.
        return cls(features - {"syntax"}) if features is not None else None

    def build(self, job: BuildJob) -> str:
        """See `Builder.build`."""
        output, settings = Output(job), job.settings
        try:
            text = (job.context / settings.dockerfile).read_text(errors="surrogateescape")
        except FileNotFoundError:
            raise ConfigurationError(
                f"there is no {settings.dockerfile} in the source",
                hint="create it, or set `dockerfile` to its path relative to the context",
            ) from None
        dockerfile = Dockerfile(text)
        for base in dockerfile.bases(settings.args, settings.target):
            pull(base, job.logins, output.line, job.beat, platform=settings.platform)
        key = uuid4().hex
        parameters: dict[str, Any] = {
            "version": self.version,
            "buildid": key,
            "t": job.tag,
            "dockerfile": settings.dockerfile,
            "rm": "1",
            "forcerm": "1",
            "labels": json.dumps(dict(job.labels)),
            "buildargs": json.dumps(dict(settings.args)),
            "target": settings.target or None,
            "platform": settings.platform or None,
        }
        with tempfile.TemporaryFile(dir=job.scratch) as archive, engine() as client:
            pack(job.context, settings.dockerfile, dockerfile, archive)
            archive.seek(0)
            address = f"{client.api.base_url}/v{client.api.api_version}"
            response = client.api.post(
                f"{address}/build",
                params=parameters,
                data=archive,
                headers={"Content-Type": "application/x-tar"},
                stream=True,
                timeout=(20, None),
            )
            if response.status_code >= 400:
                raise output.error(str(json.loads(response.content or b"{}").get("message", "")))
            ended = False
            try:
                image = self._follow(response, job, output)
                ended = True
            finally:
                if not ended:
                    # The first ends BuildKit's work; closing the connection ends the classic one's.
                    with suppress(requests.exceptions.RequestException):
                        client.api.post(f"{address}/build/cancel", params={"id": key}, timeout=5)
                    with suppress(Exception):
                        response.raw.shutdown()  # wakes the thread that reads
                response.close()
        if not image:
            raise BuildFailed("the engine named no image", evidence="\n".join(output.tail))
        return image

    def _follow(self, response: requests.Response, job: BuildJob, output: Output) -> str:
        """Read the answer to its end. Returns the image's id."""
        image = ""
        with translated():
            for line in attended(_events(response), job.beat):
                event = json.loads(line)
                aux = event.get("aux")
                if event.get("id") == "moby.buildkit.trace":
                    for text in lines_of(b64decode(aux)):
                        output.line(text)
                elif isinstance(aux, dict) and "ID" in aux:
                    image = str(aux["ID"])
                elif said := (event.get("errorDetail") or {}).get("message") or event.get("error"):
                    raise output.error(str(said))
                for text in str(event.get("stream", "")).splitlines():
                    output.line(text)
        return image


def _events(response: requests.Response) -> Iterator[str]:
    for line in response.iter_lines():
        if line:
            yield line.decode(errors="replace")


def pack(context: Path, name: str, dockerfile: Dockerfile, archive: IO[bytes]) -> None:
    """Write a context as the engine takes it: owned by root, in GNU format (it takes a PAX header
    for the Dockerfile), and its Dockerfile without the `# syntax=` line."""

    def owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    with tarfile.TarFile(
        fileobj=archive, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape"
    ) as tar:
        replaced = context / name if dockerfile.syntax else None
        for path in sorted(context.rglob("*")):
            info = owned(tar.gettarinfo(path, str(path.relative_to(context))))
            if info.type == tarfile.LNKTYPE:  # a second name of a file: the engine gets two files
                info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
            if path == replaced:
                _add(tar, info, dockerfile.without_syntax.encode(errors="surrogateescape"))
            elif info.isreg():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)


def _add(tar: tarfile.TarFile, info: tarfile.TarInfo, content: bytes) -> None:
    with tempfile.SpooledTemporaryFile() as file:
        file.write(content)
        file.seek(0)
        info.size = len(content)
        tar.addfile(info, file)
