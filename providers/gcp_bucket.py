"""The bucket of a HelixDB on Google Cloud.

HelixDB reaches it by S3's API, which Cloud Storage speaks at storage.googleapis.com for those who
have an HMAC key of a service account.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from google.api_core.exceptions import GoogleAPIError
from google.api_core.exceptions import NotFound as Missing
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage as sdk
from requests.exceptions import RequestException

from model.errors import ConfigurationError, Conflict, NotFound
from model.gcp_errors import translate
from model.instance import Instance, ObjectStorage
from providers.base import Context
from providers.bucket import Bucket
from providers.gcp_api import TIMEOUT, Api

LABEL = "helix_instance"
"""The bucket's label; Cloud Storage allows it nothing but lower-case letters, digits, - and _."""
OPTIONS: dict[str, Any] = {"retry": None, "timeout": TIMEOUT}


class GcsBucket(Bucket):
    """A bucket of Cloud Storage.

    Args:
        project: the Google Cloud project that it is made in.
        location: where, such as europe-west1.
    """

    def __init__(
        self,
        api: Api,
        instance: Instance,
        storage: ObjectStorage,
        context: Context,
        project: str,
        location: str,
    ) -> None:
        super().__init__(instance, storage, context)
        self._api = api
        self._project = project
        self._location = location

    @property
    def _client(self) -> sdk.Client:
        return self._api.storage(self._project)

    def owner(self) -> str | None:
        try:
            found = self._call(self._client.get_bucket, "storage.buckets.get", reads=True)
        except NotFound:
            return None
        label = found.labels.get(LABEL, "")
        return self.instance.key if label == _label(self.instance.key) else label

    def is_empty(self) -> bool:
        def first(name: str, **options: Any) -> list[Any]:
            return list(self._client.list_blobs(name, max_results=1, **options))

        return not self._call(first, "storage.objects.list", reads=True)

    def create(self) -> None:
        """One call, which sets everything that `protect` would."""

        def create(name: str, **options: Any) -> Any:
            made = self._client.bucket(name)
            self._set(made)
            return self._client.create_bucket(made, location=self._location, **options)

        try:
            self._call(create, "storage.buckets.create")
        except Conflict:
            self.owner()  # refuses one of another project

    def protect(self) -> None:
        def patch(name: str, **options: Any) -> None:
            found = self._client.get_bucket(name, **options)
            if found.labels.get(LABEL) != _label(self.instance.key):
                self._set(found)
                found.patch(**options)

        self._call(patch, "storage.buckets.update")

    def _set(self, bucket: Any) -> None:
        """Encrypted it is anyway."""
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        bucket.iam_configuration.public_access_prevention = "enforced"
        bucket.versioning_enabled = True
        bucket.labels = {**bucket.labels, LABEL: _label(self.instance.key)}

    def check_access(self) -> None:
        """HelixDB needs an HMAC key: Cloud Run's own account does not open S3's API."""
        if "AWS_ACCESS_KEY_ID" not in self.instance.secrets:
            raise ConfigurationError(
                f"the release has nothing to open the bucket «{self.name}» with",
                hint="make a key: gcloud storage hmac create SERVICE_ACCOUNT; then name it by "
                f"access_key and secret_key in {self._where}",
            )
        if self.storage.grant:
            raise ConfigurationError(
                "grant is not for Google Cloud: the key's account has the rights",
                hint=f"remove grant from {self._where}; see docs/providers/gcp.md",
            )

    def delete(self) -> None:
        def empty(name: str, **options: Any) -> int:
            blobs = list(self._client.list_blobs(name, versions=True, max_results=500, **options))
            for blob in blobs:
                with suppress(Missing):  # somebody was faster
                    blob.delete(**options)
            return len(blobs)

        def delete(name: str, **options: Any) -> None:
            self._client.bucket(name).delete(**options)

        with suppress(NotFound):
            while removed := self._call(empty, "storage.objects.delete"):
                self.context.report(f"removed {removed} objects of {self.name}")
            self._call(delete, "storage.buckets.delete")

    def _call(self, call: Callable[..., Any], doing: str, *, reads: bool = False) -> Any:
        """One call about the bucket.

        Raises:
            HelixError: by the tables of `model.gcp_errors`.
        """
        try:
            return call(self.name, **OPTIONS)
        except (GoogleAPIError, GoogleAuthError, RequestException) as error:
            raise translate(error, doing, reads=reads) from None


def _label(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]
