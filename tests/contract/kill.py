"""Dying in the middle of a conversation with a Docker engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from requests import Session

from helix_deploy.testing import Killed


@contextmanager
def killed_after(writes: int) -> Iterator[None]:
    """In this block, right after so many requests that change something, raise `Killed`."""
    send, left = Session.send, writes

    def dying(session: Session, request: Any, **options: Any) -> Any:
        nonlocal left
        answer = send(session, request, **options)
        if request.method not in ("GET", "HEAD"):
            left -= 1
            if left == 0:
                raise Killed(f"after {request.method} {request.url}")
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "send", dying)
        yield
