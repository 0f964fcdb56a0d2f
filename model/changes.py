"""What a deployment would change, compared with the release that runs. Values of the environment
never appear: their names do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from model.base import Record
from model.instance import Instance


class Change(Record):
    """One difference."""

    what: str
    """`image`, `env GREETING`, `volumes`, a setting's name…"""
    before: str = ""
    """Empty: it was not there."""
    after: str = ""
    """Empty: it goes."""

    def __str__(self) -> str:
        if not self.before:
            return f"+ {self.what}: {self.after}"
        if not self.after:
            return f"- {self.what}: {self.before}"
        return f"~ {self.what}: {self.before} → {self.after}"


PLAIN = ("port", "publish", "strategy", "stop_grace", "keep_releases", "command")
"""Settings that are shown as they are."""
HIDDEN = "(set)"


def changes(before: Instance | None, after: Instance) -> list[Change]:
    """Every difference between two configurations of an instance; all of it if it is new."""
    old: dict[str, Any] = before.model_dump(mode="json") if before else {}
    new: dict[str, Any] = after.model_dump(mode="json")
    found = [
        Change(what=name, before=_text(old.get(name)), after=_text(new[name]))
        for name in PLAIN
        if _text(old.get(name)) != _text(new[name])
    ]
    for name in ("target", "registry", "health_check", "build"):
        found += _table(name, old.get(name) or {}, new.get(name) or {})
    found += _names("env", old.get("env", {}), new["env"])
    found += _names("secret", old.get("secrets", {}), new["secrets"])
    found += _volumes(before, after)
    return found


def _text(value: Any) -> str:
    if value in (None, "", [], {}):
        return ""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) or isinstance(after, dict):
            yield from _table(f"{name}.{key}", before or {}, after or {})
        elif _text(before) != _text(after):
            yield Change(what=f"{name}.{key}", before=_text(before), after=_text(after))


def _names(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        if name not in old:
            yield Change(what=f"{what} {name}", after=HIDDEN)
        elif name not in new:
            yield Change(what=f"{what} {name}", before=HIDDEN)
        elif old[name] != new[name]:
            yield Change(what=f"{what} {name}", before=HIDDEN, after="(set to something else)")


def _volumes(before: Instance | None, after: Instance) -> Iterator[Change]:
    old = {one.mount: one for one in before.volumes} if before else {}
    new = {one.mount: one for one in after.volumes}
    for mount in sorted({*old, *new}):
        if old.get(mount) != new.get(mount):
            place = {
                side: f"{volume.name or volume.path} {volume.size_gb or ''}".strip()
                for side, volume in (("before", old.get(mount)), ("after", new.get(mount)))
                if volume is not None
            }
            yield Change(what=f"volume {mount}", **place)


def interruption(instance: Instance, holds_requests: bool, first: bool) -> str:
    """What a swap to a new release does to requests, in one sentence."""
    if first:
        return "none: nothing runs yet"
    if not instance.stop_first:
        return "none: the new release starts beside the old one"
    if holds_requests:
        return "none: requests wait while the old release stops and the new one starts"
    return "requests fail while the old release stops and the new one starts"
