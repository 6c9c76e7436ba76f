"""The floor on an object store: S3 and whatever else obstore speaks. Credentials come from the environment only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8

from stores.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore
    from zarr.abc.store import Store

SERVICES = {
    "S3Store": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT, … for S3",
    "GCSStore": "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS for Google Cloud Storage",
    "AzureStore": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, … for Azure",
}
"""What obstore takes from the environment, by its type of store."""
UNFIT = {
    "HTTPStore": "a web server neither lists what lies there nor says who wrote first",
    "MemoryStore": "what lies in a process's memory is gone with it",
    "LocalStore": "a folder is given by its path",
}
"""Why obstore's other stores cannot hold one of ours."""
PLACES = "a path, s3://BUCKET/…, gs://BUCKET/… or az://CONTAINER/…"
CONTAINER_AT_ACCOUNT = ("abfs", "abfss")
"""Schemes in which what looks like a user's name is that of a container."""


class ObjectFloor:
    """Objects below a prefix. A put is atomic and durable by itself, and a conditional put creates."""

    def __init__(self, store: ObjectStore, url: str) -> None:
        self._store, self._url = store, url

    def __repr__(self) -> str:
        return f"ObjectFloor({self._url!r})"

    @property
    def url(self) -> str:
        """The URL, without anything secret."""
        return self._url

    def read(self, key: str) -> bytes | None:
        """All bytes, or None where there is no such object."""
        import obstore

        with self._told(key):
            try:
                return bytes(obstore.get(self._store, key).bytes())
            except FileNotFoundError:
                return None

    @contextmanager
    def parts(self, key: str) -> Iterator[_ObjectParts | None]:
        """One object, of which parts are read; None without the object."""
        size = self.size(key)
        yield None if size is None else _ObjectParts(self, key, size)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Bytes of an object that is there, from an offset on."""
        import obstore

        with self._told(key):
            return bytes(obstore.get_range(self._store, key, start=offset, length=length))

    def size(self, key: str) -> int | None:
        """Length in bytes, or None where there is no such object."""
        import obstore

        with self._told(key):
            try:
                return int(obstore.head(self._store, key)["size"])
            except FileNotFoundError:
                return None

    def put(self, key: str, data: bytes) -> None:
        """Write or replace an object."""
        import obstore

        with self._told(key):
            obstore.put(self._store, key, data)

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write or replace objects."""
        for key, data in files.items():
            self.put(key, data)

    def create(self, key: str, data: bytes, *, leased: bool = False) -> bool:
        """Write an object unless it exists.

        A request that went through and whose answer was lost is retried, and finds its own bytes: that counts
        as written.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._told(key):
            try:
                obstore.put(self._store, key, data, mode="create")
            except (AlreadyExistsError, PreconditionError):
                return self.read(key) == data
        return True

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        import obstore

        with self._told(key):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                return

    def names(self, prefix: str) -> list[str]:
        """Names directly under ``prefix``."""
        import obstore

        with self._told(prefix):
            found = obstore.list_with_delimiter(self._store, prefix or None)
        keys = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted(key.rstrip("/").rpartition("/")[2] for key in keys)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Length of every object anywhere under ``prefix``."""
        import obstore

        with self._told(prefix):
            batches = list(obstore.list(self._store, prefix or None))
        return {entry["path"]: int(entry["size"]) for batch in batches for entry in batch}

    def litter(self) -> list[str]:
        """Nothing: an object store has no half-written objects."""
        return []

    def zarr(self) -> Store:
        """The same objects as a read-only Zarr store."""
        from zarr.storage import ObjectStore as ZarrObjectStore

        return ZarrObjectStore(self._store, read_only=True)

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Errors of the service as a ``StoreError`` of two lines, not fifty."""
        from obstore.exceptions import BaseError

        try:
            yield
        except BaseError as error:
            raise StoreError(
                f"{self._url}: {key or 'listing'}: {str(error).partition(chr(10))[0]}. Check the URL, the network, and "
                f"the credentials in the environment ({SERVICES.get(type(self._store).__name__, 'of the service')})."
            ) from error


@dataclass(frozen=True)
class _ObjectParts:
    """Parts of an object, each a request."""

    floor: ObjectFloor
    key: str
    size: int

    def read(self, offset: int, length: int) -> UInt8[np.ndarray, " n"]:
        length = min(length, self.size - offset)
        data = self.floor.read_range(self.key, offset, length) if length > 0 else b""
        return np.frombuffer(data, np.uint8)


def remote_floor(url: str) -> ObjectFloor:
    """The floor at a URL such as "s3://bucket/run.zarr".

    Raises:
        StoreError: obstore is not installed, the URL is not understood or one of a service that cannot hold a store, or
            it carries credentials.
    """
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise StoreError(
            f"{url}: remote stores need obstore; install it with `pip install 'spray-audit[remote]'`."
        ) from error
    parts = urlsplit(url)
    user = None if parts.scheme in CONTAINER_AT_ACCOUNT else parts.username
    if user or parts.password or parts.query:
        raise StoreError(
            f"{parts.scheme}://{parts.hostname}{parts.path}: a store's URL carries no credentials or options; put "
            f"them into the environment ({'; '.join(SERVICES.values())})."
        )
    try:
        store: Any = from_url(url)
    except Exception as error:  # obstore raises ValueError, its own errors, or pyo3's
        raise StoreError(
            f"{url} cannot be opened: {str(error).partition(chr(10))[0]}. A store lies at {PLACES}; "
            f"what the service needs stands in the environment ({'; '.join(SERVICES.values())})."
        ) from error
    if reason := UNFIT.get(type(store).__name__):
        raise StoreError(f"{url} cannot hold a store: {reason}. Give {PLACES}.")
    return ObjectFloor(store, url)
