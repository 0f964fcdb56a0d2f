"""Image references: what people write, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from model.errors import ConfigurationError

DOCKER_HUB = "docker.io"
_DOCKER_HUB_NAMES = {DOCKER_HUB, "index.docker.io", "registry-1.docker.io"}
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
# The grammar of github.com/distribution/reference.
_PATTERN = re.compile(
    r"(?:(?P<host>\[[0-9a-fA-F:]+\](?::[0-9]+)?|[a-zA-Z0-9.-]+(?::[0-9]+)?)/)?"
    rf"(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))?"
)


@dataclass(frozen=True)
class Reference:
    """One image, or one repository, in one registry."""

    host: str
    """Host and port as people write them: ghcr.io, 127.0.0.1:5000, docker.io."""
    path: str
    """The repository's name at that host: acme/shop."""
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """Host and path, as an engine names it."""
        return f"{self.host}/{self.path}"

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Take a reference apart as an engine does: no host means Docker Hub.

        Raises:
            ConfigurationError: not a reference.
        """
        if "://" in text:
            raise ConfigurationError(
                f"«{text}» is not an image reference",
                hint="write it without the scheme, for example 127.0.0.1:5000/shop",
            )
        host, slash, rest = text.partition("/")
        if not slash or not ({".", ":"} & set(host) or host == "localhost"):
            host, rest = DOCKER_HUB, text
        if host in _DOCKER_HUB_NAMES:
            host = DOCKER_HUB
            rest = rest if "/" in rest else f"library/{rest}"
        match = _PATTERN.fullmatch(f"{host}/{rest}")
        if match is None:
            raise ConfigurationError(
                f"«{text}» is not an image reference",
                hint="write host/path in lower case, with a :tag or @sha256:digest if need be",
            )
        return cls(host, match["path"], match["tag"] or "", match["digest"] or "")


def is_loopback(host: str) -> bool:
    """Whether a host, with or without its port, is this very machine."""
    name = host.rsplit(":", 1)[0] if re.search(r":[0-9]+$", host) else host
    if name == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
