"""Volumes on Fargate: access points of an EFS file system."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

from model.errors import ConfigurationError, Conflict, NotFound, Transient
from model.instance import Instance, Volume
from model.names import LABEL_INSTANCE
from providers.aws_api import AwsApi, tag_value
from providers.aws_task import token

OWNER = 65532
"""The user whom EFS takes every file of a volume to belong to: HelixDB's own."""


class AccessPoints:
    """The access points of one instance, each a folder of the file system.

    Args:
        service: the service's name, which the folders begin with.
        file_system: the file system's id; empty if there is none.
    """

    def __init__(self, api: AwsApi, instance: Instance, service: str, file_system: str) -> None:
        self._api = api
        self._instance = instance
        self._service = service
        self._file_system = file_system

    def ensure(self, volumes: Iterable[Volume]) -> dict[str, str]:
        """Find or create them. Returns mount -> id."""
        return {volume.mount: self._ensure(volume) for volume in volumes}

    def delete(self, volumes: Iterable[Volume]) -> None:
        """Delete them. Idempotent.

        Raises:
            ConfigurationError: there were some, and so there are files that stay.
        """
        left = []
        for volume in volumes:
            with suppress(NotFound):
                if (found := self._find(volume)) is not None:
                    left.append(self._folder(volume))
                    self._api("efs", "delete_access_point", AccessPointId=found)
        if left:
            raise ConfigurationError(
                f"the files of {', '.join(left)} stay in the file system {self._file_system}: "
                "AWS has no call that removes files",
                hint="mount it and remove them, or delete the file system",
            )

    def _ensure(self, volume: Volume) -> str:
        found = self._find(volume)
        if found is None:
            with suppress(Conflict):  # another caller was faster
                self._create(volume)
            found = self._find(volume)
        if found is None:
            raise Transient("EFS does not list the new access point yet")
        return found

    def _create(self, volume: Volume) -> None:
        owner = {"OwnerUid": OWNER, "OwnerGid": OWNER, "Permissions": "0750"}
        self._api(
            "efs",
            "create_access_point",
            ClientToken=self._token(volume),
            FileSystemId=self._file_system,
            PosixUser={"Uid": OWNER, "Gid": OWNER},
            RootDirectory={"Path": self._folder(volume), "CreationInfo": owner},
            Tags=[
                {"Key": "Name", "Value": self._service},
                {"Key": LABEL_INSTANCE, "Value": tag_value(self._instance.key)},
            ],
        )

    def _find(self, volume: Volume) -> str | None:
        points = self._api.pages(
            "efs", "describe_access_points", "AccessPoints", FileSystemId=self._file_system
        )
        mark = self._token(volume)
        return next((one["AccessPointId"] for one in points if one["ClientToken"] == mark), None)

    def _token(self, volume: Volume) -> str:
        return token(self._instance.key, volume.name or volume.mount)

    def _folder(self, volume: Volume) -> str:
        """Where the volume's files are in the file system."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", (volume.name or volume.mount).strip("/"))
        return f"/helix-{self._service.removeprefix('helix-')}/{name}"
