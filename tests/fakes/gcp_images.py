"""Artifact Registry as a whole: its API's stand-in, and a real registry for the images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.gcp import FakeGcp
from tests.services.registry import TestRegistry, token_registry

USER = "oauth2accesstoken"
"""Who logs in with an access token, by Google's documentation."""


@contextmanager
def gcp_with_images(folder: Path) -> Iterator[tuple[FakeGcp, TestRegistry]]:
    """Run both. The registry takes the access tokens that the stand-in hands out."""
    with token_registry(folder / "images") as images, FakeGcp() as cloud:
        assert images.tokens is not None
        images.tokens.also = lambda user, password: (
            user == USER and password in cloud.web.access_tokens
        )
        yield cloud, images
