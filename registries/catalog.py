"""Which kinds of registry an image can be stored in."""

from __future__ import annotations

from model.catalog import Catalog

REGISTRIES = Catalog(
    "helix.registries",
    builtin={
        "oci": "registries.oci:OciRegistry",
    },
)
