"""Query bundles in the store: read for a deployment, and kept for a rollback."""

from __future__ import annotations

import tempfile
from pathlib import Path

from model.artifact import Bundle, Source
from model.errors import NotFound
from project.source import fetch
from project.store import Store


class Bundles:
    """What a provider may do with bundles (`providers.base.BundleStore`)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, bundle: Bundle) -> dict[str, bytes]:
        """The files of a bundle, by their paths.

        Raises:
            NotFound: it is gone from the store, or damaged.
        """
        source = Source(digest=bundle.digest, url=bundle.url, size=bundle.size)
        with tempfile.TemporaryDirectory(prefix="helix-bundle-") as folder:
            into = Path(folder, "files")
            fetch(source, into, self._store)
            files = sorted(path for path in into.rglob("*") if path.is_file())
            return {path.relative_to(into).as_posix(): path.read_bytes() for path in files}

    def keep(self, name: str, content: bytes) -> None:
        """Keep what is deployed. What is kept under a name already stays as it is."""
        self._store.put_bytes(content, f"bundles/{name}.json")

    def kept(self, name: str) -> bytes | None:
        """What was kept under a name; None if nothing was."""
        url = self._store.url(f"bundles/{name}.json")
        try:
            return self._store.read_text(url).encode()
        except NotFound:
            return None
