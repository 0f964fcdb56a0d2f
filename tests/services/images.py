"""Small images for registry tests, put there without an engine."""

from __future__ import annotations

import json
from hashlib import sha256

from registries.distribution import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Distribution, Manifest

LAYER = "application/vnd.oci.image.layer.v1.tar"


def put_image(api: Distribution, tag: str, content: bytes = b"layer", platform: str = "") -> str:
    """Store an image of one layer and return its digest."""
    config = json.dumps({"architecture": platform or "amd64", "os": "linux"}).encode()
    return _put(
        api,
        tag,
        OCI_MANIFEST,
        {
            "config": _descriptor(OCI_CONFIG, config, api),
            "layers": [_descriptor(LAYER, content, api)],
        },
    )


def put_index(api: Distribution, tag: str) -> str:
    """Store an image for two platforms and return the digest of its index."""
    entries = []
    for platform in ("amd64", "arm64"):
        digest = put_image(api, platform, f"layer of {platform}".encode(), platform)
        size = len(api.manifest(digest).body)
        where = {"os": "linux", "architecture": platform}
        entries.append(
            {"mediaType": OCI_MANIFEST, "digest": digest, "size": size, "platform": where}
        )
    return _put(api, tag, OCI_INDEX, {"manifests": entries})


def _put(api: Distribution, tag: str, media_type: str, body: dict[str, object]) -> str:
    content = json.dumps({"schemaVersion": 2, "mediaType": media_type, **body}).encode()
    manifest = Manifest(media_type, content, f"sha256:{sha256(content).hexdigest()}")
    api.put_manifest(manifest, tag)
    return manifest.digest


def _descriptor(media_type: str, content: bytes, api: Distribution) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(content), "digest": api.upload_bytes(content)}
