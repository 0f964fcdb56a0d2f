"""ECR as a whole: moto's server for its own calls, and a real registry for the images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt

from tests.fakes.aws import PASSWORD, AwsServer, aws_server
from tests.services.registry import TestRegistry, open_registry

USER = "AWS"
"""Who logs in with a token of ECR's."""


def _let_in(folder: Path, password: str) -> None:
    known = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"{USER}:{known}\n")


@contextmanager
def locked(folder: Path) -> Iterator[str]:
    """In this block the registry that was run in `folder` refuses the token. Yields its user."""
    _let_in(folder, "another")
    try:
        yield USER
    finally:
        _let_in(folder, PASSWORD)


@contextmanager
def aws_with_images(folder: Path) -> Iterator[tuple[AwsServer, TestRegistry]]:
    """Run both. The registry takes the user and the token that moto hands out."""
    _let_in(folder, PASSWORD)
    auth = {"htpasswd": {"realm": "ecr", "path": str(folder / "htpasswd")}}
    with (
        open_registry(folder / "images", auth=auth) as images,
        aws_server(images.folder / "data") as aws,
    ):
        yield aws, images
