"""What is known of a deployment, as files for somebody else to read: without any secret."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from model.errors import ConfigurationError, HelixError
from model.redaction import redact

if TYPE_CHECKING:
    from pathlib import Path

    from model.instance import Instance

SECRET_NAME = re.compile(r"(?i)passw|secret|token|api_?key|private_?key|credential")
"""What a key is called whose plain value is taken for a secret."""

CODE_NAMES = {"eventType", "name", "metadata"}
"""Keys of a history that hold names of code, which a replay compares; never a person's text."""


def known_secrets(instance: Instance, env_file: Path) -> tuple[set[str], list[str]]:
    """The secrets of an instance as far as this machine can read them.

    Returns:
        Their values, and the references that lead nowhere from here. Never show the first.
    """
    from project import secrets

    values: set[str] = set()
    unread: list[str] = []
    for name, text in _texts(instance.model_dump(mode="json")):
        try:
            secrets.check(text)
        except ConfigurationError:
            if SECRET_NAME.search(name):
                values.add(text)
            continue
        try:
            value = secrets.resolve(text, extra_env_file=env_file).get_secret_value()
        except HelixError:
            unread.append(text)
        else:
            values |= {value, *(line for line in value.splitlines() if len(line) > 15)}
    return values, sorted(set(unread))


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a document, with the key it stands at."""
    match value:
        case str():
            yield name, value
        case dict():
            for key, each in value.items():
                yield from _texts(each, key)
        case list():
            for each in value:
                yield from _texts(each, name)


def cleaned(value: Any, secrets: set[str]) -> Any:
    """A JSON document without secrets, its shape unchanged."""
    return _mapped(value, lambda text: redact(text, secrets))


def cleaned_history(text: str, secrets: set[str]) -> str:
    """A history in JSON without secrets, which replays as the one it was made of.

    What the workflow was given and answered stands in it as base64, and is cleaned as well.
    """

    def clean(value: Any) -> Any:
        match value:
            case {"metadata": {"encoding": _}}:
                return _cleaned_payload(value, secrets)
            case dict():
                return {
                    key: each if key in CODE_NAMES else clean(each) for key, each in value.items()
                }
            case list():
                return [clean(each) for each in value]
            case str():
                return redact(value, secrets)
        return value

    return json.dumps(clean(json.loads(text)), indent=1)


def _cleaned_payload(payload: dict[str, Any], secrets: set[str]) -> dict[str, Any]:
    data = base64.b64decode(payload.get("data", ""))
    try:
        clean = json.dumps(cleaned(json.loads(data), secrets)).encode()
    except ValueError:
        # No JSON: nothing, or what a codec encrypted, which only its owner can read.
        return payload
    return {**payload, "data": base64.b64encode(clean).decode()}


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case dict():
            return {change(key): _mapped(each, change) for key, each in value.items()}
        case list():
            return [_mapped(each, change) for each in value]
    return value
