"""How the stand-in for Azure says no: a status, and the body that Azure Resource Manager gives."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def body(self) -> dict[str, Any]:
        """As ARM has it."""
        return {"error": {"code": self.code, "message": self.message}}


def unauthorized(action: str, scope: str) -> Refused:
    """What ARM says to somebody who lacks a permission."""
    return Refused(
        403,
        "AuthorizationFailed",
        "The client '4711' with object id '4711' does not have authorization to perform action "
        f"'{action}' over scope '{scope}' or the scope is invalid.",
    )
