"""Where a release's data lives on an engine, and what keeps it safe.

A volume is never open twice, and its data is deleted by `Volumes.destroy` and nothing else. What is
still empty after a first deployment that failed is not data.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import docker
from docker.errors import APIError
from docker.errors import NotFound as Missing
from docker.models.volumes import Volume as DockerVolume

from model import names
from model.errors import ConfigurationError, Conflict, PermissionDenied
from model.instance import Instance, Volume
from providers.containers import Box

HEAD_BYTES = 64 * 1024
"""So much of a folder's archive shows whether there is anything besides the folder itself."""


class Volumes:
    """The volumes of one instance on one engine.

    Args:
        local: whether the engine's disk is this machine's.
    """

    def __init__(self, client: docker.DockerClient, instance: Instance, *, local: bool) -> None:
        self._client = client
        self._instance = instance
        self._local = local

    @property
    def _all(self) -> Sequence[Volume]:
        return self._instance.volumes

    @property
    def binds(self) -> list[str]:
        """As an engine wants them: source:mount."""
        return [f"{each.path or each.name}:{each.mount}" for each in self._all]

    def check(self) -> None:
        """See that no named one is another instance's.

        Raises:
            Conflict: whose it is.
        """
        for volume in self._all:
            if volume.name:
                with suppress(Missing):
                    self._refuse_foreign(self._client.volumes.get(volume.name))

    def _refuse_foreign(self, found: DockerVolume) -> None:
        instance = self._instance
        owner = (found.attrs.get("Labels") or {}).get(names.LABEL_INSTANCE)
        if owner not in (None, instance.key):
            raise Conflict(
                f"the volume {found.name} holds the data of {owner}",
                hint=f"name it otherwise in [deploy.{instance.name}], such as "
                f"{names.docker_name(instance.project, instance.name)}_data",
            )

    def ensure(self, deployment: str) -> list[str]:
        """Create the named ones that are missing. Returns what this deployment brings into being:
        those, from an earlier attempt too, and the folders that are not there yet.

        Raises:
            Conflict: another instance's data has the name.
        """
        made = []
        for volume in self._all:
            if volume.path:
                if self._local and not Path(volume.path).exists():
                    made.append(volume.path)
                continue
            labels = {
                names.LABEL_INSTANCE: self._instance.key,
                names.LABEL_DEPLOYMENT: deployment,
            }
            found = self._client.volumes.create(volume.name, labels=labels)  # or finds it
            self._refuse_foreign(found)
            if (found.attrs.get("Labels") or {}).get(names.LABEL_DEPLOYMENT) == deployment:
                made.append(volume.name)
        return made

    def make_folders(self) -> None:
        """Create the folders that are missing, as ours: the engine would create them as root's."""
        for volume in self._all:
            if self._local and volume.path:
                with suppress(PermissionError):  # then the engine may, and does
                    Path(volume.path).mkdir(parents=True, exist_ok=True)

    def refuse_second(self, box: Box) -> None:
        """See that no running container may write to what this one is about to open.

        Raises:
            Conflict: which one does.
        """
        wanted = _sources(box.container.attrs.get("Mounts") or ())
        if not wanted:
            return
        for one in self._client.api.containers():
            if one["Id"] != box.id and wanted & _sources(one.get("Mounts") or ()):
                holder = str(one["Names"][0]).lstrip("/")
                raise Conflict(
                    f"the container {holder} has the volume of {self._instance.key} open",
                    hint=f"stop it first: docker stop {holder}",
                )

    def empty(self, boxes: Sequence[Box]) -> list[str]:
        """Of what these stopped containers brought into being, that which holds nothing. The engine
        is asked, for its disk may be another machine's; in doubt there is data."""
        mounts = {each.path or each.name: each.mount for each in self._all}
        return [
            source
            for box in boxes
            for source in box.made
            if source in mounts and _is_empty(box, mounts[source])
        ]

    def remove(self, sources: Iterable[str]) -> None:
        """Remove what `empty` found."""
        for source in sources:
            if source.startswith("/"):
                with suppress(OSError):  # only an empty folder can be removed like this
                    os.rmdir(source)
            else:
                with suppress(Missing):
                    self._client.volumes.get(source).remove()

    def destroy(self) -> None:
        """Delete the data. Idempotent.

        Raises:
            ConfigurationError: it is a folder on another machine.
            PermissionDenied: it is not ours to delete.
        """
        for volume in self._all:
            if volume.path:
                self._destroy_folder(volume.path)
            else:
                self._destroy_volume(volume.name)

    def _destroy_volume(self, name: str) -> None:
        try:
            volume = self._client.volumes.get(name)
        except Missing:
            return
        owner = (volume.attrs.get("Labels") or {}).get(names.LABEL_INSTANCE)
        if owner != self._instance.key:
            raise PermissionDenied(
                f"the volume {name} was not made for {self._instance.key}, so it stays",
                hint=f"if its data may go: docker volume rm {name}",
            )
        volume.remove()

    def _destroy_folder(self, path: str) -> None:
        by_hand = f"sudo rm -r {path}"
        if not self._local:
            raise ConfigurationError(
                f"the data in {path} is on the engine's machine, where only you can delete it",
                hint=f"on that machine: {by_hand}",
            )
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise PermissionDenied(
                f"cannot delete {error.filename or path}: {error.strerror}", hint=by_hand
            ) from None


def _sources(mounts: Iterable[dict[str, object]]) -> set[object]:
    """The volumes and host folders among mounts that can be written to."""
    written = [one for one in mounts if one.get("RW", True)]
    return {one[key] for one in written for key in ("Name", "Source") if one.get(key)}


def _is_empty(box: Box, mount: str) -> bool:
    data = b""
    try:
        chunks, _stat = box.container.get_archive(mount)
        for chunk in chunks:
            data += chunk
            if len(data) > HEAD_BYTES:
                break
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return archive.next() is not None and archive.next() is None
    except (APIError, tarfile.TarError):
        return False
