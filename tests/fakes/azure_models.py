"""Holds what goes in and out of the stand-in for Azure to the SDK's own models."""

from __future__ import annotations

from typing import Any

from azure.mgmt.appcontainers._utils.model_base import Model

from tests.fakes.azure_refused import Refused


def checked(model: type[Any], body: dict[str, Any], *, sent: bool = False) -> dict[str, Any]:
    """The body, if every field of it is one of the model's.

    Args:
        sent: by a client, which may not set what can only be read.

    Raises:
        Refused: which field is not.
    """
    _check(model(body), body, model.__name__, sent)
    return body


def _check(model: Any, body: dict[str, Any], where: str, sent: bool) -> None:
    fields = {field._rest_name: (attr, field) for attr, field in model._attr_to_rest_field.items()}
    for name, value in body.items():
        if name not in fields:
            raise Refused(
                400, "InvalidRequestContent", f"Could not find member '{name}' on {where}."
            )
        attribute, field = fields[name]
        if sent and field._visibility == ["read"]:
            raise Refused(400, "InvalidRequestContent", f"{where}.{name} is read-only.")
        _inner(getattr(model, attribute), value, f"{where}.{name}", sent)


def _inner(model: Any, value: Any, where: str, sent: bool) -> None:
    if isinstance(model, Model) and isinstance(value, dict):
        _check(model, value, where, sent)
    elif isinstance(model, list) and isinstance(value, list):
        for number, (one, of) in enumerate(zip(model, value, strict=True)):
            _inner(one, of, f"{where}[{number}]", sent)
