"""Hides secrets in text that leaves a step: errors, logs, heartbeats.

The second line of defence. The first is that no secret is put into such a text at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import SecretStr

HIDDEN = "«hidden»"

SHAPES: tuple[tuple[str, str], ...] = (
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", HIDDEN),
    (r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", HIDDEN),
    (r"(?i)(aws_secret_access_key\W{1,4})[A-Za-z0-9/+=]{30,}", rf"\1{HIDDEN}"),
    (r"(?i)(authorization\W{1,4}(?:basic|bearer|token) +)[^\s\"',]+", rf"\1{HIDDEN}"),
    (r"(?i)\b(bearer +)[A-Za-z0-9._~+/-]{20,}=*", rf"\1{HIDDEN}"),
    (r"\bFlyV1 +[^\s\"']+", f"FlyV1 {HIDDEN}"),
    (r"\bf[mo][12]_[A-Za-z0-9+/=_-]{16,}", HIDDEN),
    (r"\bgh[pousr]_[A-Za-z0-9]{20,}", HIDDEN),
    (r"\bgithub_pat_[A-Za-z0-9_]{20,}", HIDDEN),
    (r"\bglpat-[A-Za-z0-9_-]{16,}", HIDDEN),
    (r"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{16,}", HIDDEN),
    (r"\bhv[sbr]\.[A-Za-z0-9_-]{16,}", HIDDEN),
    (r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}", HIDDEN),
    (r"\bya29\.[A-Za-z0-9_-]{16,}", HIDDEN),
    (r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){1,4}", HIDDEN),
    (r"(://[^/\s:@]*:)[^/\s@]+(?=@)", rf"\1{HIDDEN}"),
    (r"(?i)([?&](?:x-amz-signature|x-amz-security-token|x-goog-signature|sig)=)[^&\s\"']+",
     rf"\1{HIDDEN}"),
)  # fmt: skip
"""Shapes of well-known tokens -> what stands in their place."""

_SHAPES = tuple((re.compile(pattern, re.DOTALL), place) for pattern, place in SHAPES)
SHORTEST = 4
"""Characters of the shortest known value that is hidden: shorter ones occur in any text."""


def redact(text: str, secrets: Iterable[SecretStr | str] = ()) -> str:
    """The text without the given secrets, and without anything shaped like a well-known token."""
    values = {
        value.get_secret_value() if isinstance(value, SecretStr) else value for value in secrets
    }
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    for pattern, place in _SHAPES:
        text = pattern.sub(place, text)
    return text
