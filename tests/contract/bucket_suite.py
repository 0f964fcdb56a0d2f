"""What every bucket of a HelixDB must do, whatever cloud has it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

import pytest

from helix_deploy.testing import Killed
from model.errors import ConfigurationError, Conflict, HelixError, PermissionDenied
from providers.bucket import Bucket


class Storage(ABC):
    """One cloud's object storage, with no bucket in it yet."""

    name = "acme-data"

    @abstractmethod
    def bucket(self, *, key: str = "shop/prod", create: bool = True) -> Bucket:
        """The bucket of an instance, as another worker would open it."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether it is there."""

    @abstractmethod
    def is_protected(self) -> bool:
        """Encrypted, versioned and closed to the public."""

    @abstractmethod
    def make(self) -> None:
        """Somebody else makes it, and does nothing more."""

    @abstractmethod
    def put(self, key: str) -> None:
        """A HelixDB writes an object."""

    @abstractmethod
    def keys(self) -> list[str]:
        """The objects."""

    @abstractmethod
    def take(self) -> None:
        """Another account has the name."""

    @abstractmethod
    def lose_the_next_answer(self) -> None:
        """The next change happens, and its answer does not arrive."""

    @abstractmethod
    def kill_after(self, calls: int) -> AbstractContextManager[None]:
        """In this block, right after so many calls that change something, raise `Killed`."""


class BucketSuite:
    """Tests that need nothing but a storage."""

    def test_it_is_made_once_and_protected(self, storage: Storage) -> None:
        storage.bucket().check()
        assert not storage.exists()
        for _ in range(2):
            storage.bucket().ensure()
            assert storage.is_protected()
            assert storage.bucket().owner() == "shop/prod"
            storage.put("db/manifest")
        assert storage.keys() == ["db/manifest"]

    def test_an_attempt_that_died_is_finished(self, storage: Storage) -> None:
        for calls in range(1, 20):
            storage.name = f"acme-data-{calls}"
            try:
                with storage.kill_after(calls):
                    storage.bucket().ensure()
                break
            except Killed:
                storage.bucket().ensure()
            assert storage.is_protected()
            storage.bucket().remove()
            assert not storage.exists()
        assert 1 < calls < 20

    def test_an_answer_that_was_lost_is_no_second_bucket(self, storage: Storage) -> None:
        storage.lose_the_next_answer()
        with pytest.raises(HelixError) as caught:
            storage.bucket().ensure()
        assert caught.value.retryable
        storage.bucket().ensure()
        assert storage.is_protected()

    def test_somebodys_bucket_is_used_as_it_is_and_never_removed(self, storage: Storage) -> None:
        storage.make()
        storage.put("invoices/1")
        storage.bucket().check()
        storage.bucket().ensure()
        assert not storage.is_protected()
        with pytest.raises(ConfigurationError, match="its data stays"):
            storage.bucket().remove()
        assert storage.keys() == ["invoices/1"]

    def test_it_is_removed_with_all_versions_and_can_be_repeated(self, storage: Storage) -> None:
        storage.bucket().ensure()
        for key in ("db/1", "db/2", "db/1"):
            storage.put(key)
        for _ in range(2):
            storage.bucket().remove()
            assert not storage.exists()

    def test_that_of_another_instance_is_refused(self, storage: Storage) -> None:
        storage.bucket(key="shop/other").ensure()
        with pytest.raises(Conflict, match="belongs to"):
            storage.bucket().check()

    def test_that_of_another_account_is_refused(self, storage: Storage) -> None:
        storage.take()
        with pytest.raises(PermissionDenied, match=storage.name):
            storage.bucket().check()

    def test_what_shall_not_be_made_must_be_there(self, storage: Storage) -> None:
        with pytest.raises(ConfigurationError, match="create = false"):
            storage.bucket(create=False).check()
        storage.bucket(create=False).ensure()
        assert not storage.exists()
