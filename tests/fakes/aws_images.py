"""ECR as a whole: moto's server for its own calls, and a real registry for the images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt

from tests.fakes.aws import PASSWORD, AwsServer, aws_server
from tests.services.registry import TestRegistry, open_registry


@contextmanager
def aws_with_images(folder: Path) -> Iterator[tuple[AwsServer, TestRegistry]]:
    """Run both. The registry takes the user and the token that moto hands out."""
    password = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"AWS:{password}\n")
    auth = {"htpasswd": {"realm": "ecr", "path": str(folder / "htpasswd")}}
    with (
        open_registry(folder / "images", auth=auth) as images,
        aws_server(images.folder / "data") as aws,
    ):
        yield aws, images
