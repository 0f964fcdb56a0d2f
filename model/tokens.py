"""What a token says of itself."""

from __future__ import annotations

import base64
import json
from typing import Any


def claims(token: str) -> dict[str, Any]:
    """What a JWT says of itself, unverified; empty if it is none. It came from the server we asked,
    and nothing is granted on its word."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def entra_name(token: str) -> str:
    """Whose a token of Microsoft Entra is: a person's name, or an application's id."""
    said = claims(token)
    keys = ("upn", "unique_name", "app_displayname", "appid", "oid")
    return next((str(said[key]) for key in keys if said.get(key)), "somebody")
