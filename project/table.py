"""What every table of helix.toml has in common.

Types are strict, as HelixDB's own CLIs are: a string is never taken for a number. Unknown keys are
kept and never refused (`extra="allow"`); the reader warns about them. The JSON Schema and the
reference page are generated from the models, so a field's docstring is what a person reads there.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class Table(BaseModel):
    """A table of helix.toml."""

    model_config = ConfigDict(
        strict=True,
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    ALIASES: ClassVar[dict[str, str]] = {}
    """Other spellings of a key that some HelixDB CLI or its documentation has used."""
    VALUES: ClassVar[dict[str, dict[str, Any]]] = {}
    """Key -> other spellings of its values."""


U16 = Annotated[int, Field(ge=0, le=2**16 - 1)]
U32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Field(ge=0, le=2**64 - 1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1)]
BuildMode = Literal["dev", "debug", "release"]
