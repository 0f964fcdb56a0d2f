"""The base of everything that crosses a process boundary."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """An immutable value. Unknown fields are ignored, so that an older worker can read what a
    newer client wrote; therefore fields are only ever added, each with a default."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def digest_of(value: Any) -> str:
    """The sha256 of a JSON value in canonical form, as 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
