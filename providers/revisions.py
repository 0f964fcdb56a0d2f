"""What is kept of a current revision where a platform shares the traffic among revisions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol

from model.platform import Revision


class Marks(Protocol):
    """What a revision says of the release that it is."""

    @property
    def release(self) -> int: ...
    @property
    def deployment(self) -> str: ...
    @property
    def artifact(self) -> str: ...
    @property
    def config(self) -> str: ...


def remembered(
    name: str, marks: Marks, *, public: bool | None, shares: Iterable[tuple[str, int]]
) -> Revision:
    """A revision by its identity, with what else the app needs to be as it is now.

    Args:
        public: whether the app is reached by everybody.
        shares: revision and percent of the traffic.
    """
    detail, split = {"public": json.dumps(public)}, list(shares)
    if len(split) > 1:
        detail["traffic"] = json.dumps(split)
    return Revision(
        id=name,
        release=marks.release,
        deployment=marks.deployment,
        artifact=marks.artifact,
        config=marks.config,
        detail=detail,
    )


def shares_of(previous: Revision) -> list[tuple[str, int]]:
    """Revision and percent of the traffic as it was while `previous` was current."""
    split = json.loads(previous.detail.get("traffic", "[]"))
    return [(revision, percent) for revision, percent in split] or [(previous.id, 100)]
