"""The files of manifests in the store: in pages, so that one file is found without reading twenty thousand others.

They are packed and unpacked in a thread: two hundred pages take part of a second, or more, by what else is in them.
"""

import asyncio
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

from redis.asyncio import Redis

from broker.bulk.job import KEPT_SECONDS, Job, Listing, no_such_export
from broker.bulk.manifest import ListedFile
from broker.store import keys
from broker.store.connection import store_errors
from broker.vault import RecordContext, Vault

PAGE_FILES: Final = 250
_TOGETHER: Final = 16
"""Pages that are written or read in one round trip."""


@dataclass(frozen=True, slots=True)
class FileLists:
    """Keeps them, for as long as a job is kept."""

    redis: Redis
    vault: Vault
    tenant: str

    async def keep(self, job: Job, number: int, version: int, files: tuple[ListedFile, ...]) -> None:
        """Store what one of the job's manifests lists. Raises `StoreUnavailable`, `KeyUnavailable`."""
        pages = list(_pages(job, number, version, len(files)))
        for start in range(0, len(pages), _TOGETHER):
            async with self.redis.pipeline(transaction=False) as pipe:
                for index in range(start, min(start + _TOGETHER, len(pages))):
                    sealed = await self._seal(job, pages[index], files[index * PAGE_FILES : (index + 1) * PAGE_FILES])
                    pipe.set(keys.bulk_files(job.ehr, pages[index]), sealed, ex=KEPT_SECONDS)
                with store_errors():
                    await pipe.execute()

    async def file(self, job: Job, number: int, listing: Listing, index: int) -> ListedFile:
        """Return one file. Raises `NotFound`, `StoreUnavailable`, `SealBroken`."""
        page = _page(job, number, listing.version, index // PAGE_FILES)
        (files,) = await self._read(job, [page])
        return files[index % PAGE_FILES]

    async def all(self, job: Job, number: int, listing: Listing) -> list[ListedFile]:
        """Return all that a manifest lists. Raises as `file`."""
        pages = list(_pages(job, number, listing.version, listing.files))
        found: list[ListedFile] = []
        for start in range(0, len(pages), _TOGETHER):
            for files in await self._read(job, pages[start : start + _TOGETHER]):
                found += files
        return found

    async def forget(self, job: Job, number: int, listing: Listing) -> None:
        """Delete what a manifest listed. Raises `StoreUnavailable`."""
        names = [keys.bulk_files(job.ehr, page) for page in _pages(job, number, listing.version, listing.files)]
        if names:
            with store_errors():
                await self.redis.delete(*names)

    async def _read(self, job: Job, pages: list[str]) -> list[list[ListedFile]]:
        with store_errors():
            async with self.redis.pipeline(transaction=False) as pipe:
                for page in pages:
                    pipe.get(keys.bulk_files(job.ehr, page))
                found = cast("list[bytes | None]", await pipe.execute())
        return [await self._open(job, page, sealed) for page, sealed in zip(pages, found, strict=True)]

    async def _seal(self, job: Job, page: str, files: tuple[ListedFile, ...]) -> bytes:
        packed = await asyncio.to_thread(_packed, files)
        return await self.vault.seal(self._bound(job.ehr, page), packed, ehr=job.ehr)

    async def _open(self, job: Job, page: str, sealed: bytes | None) -> list[ListedFile]:
        if sealed is None:
            raise no_such_export(f"export {job.id} lost what it listed")
        return await asyncio.to_thread(_unpacked, await self.vault.open(self._bound(job.ehr, page), sealed))

    def _bound(self, ehr: str, page: str) -> RecordContext:
        return RecordContext(kind="bulk-files", id=f"{ehr}:{page}", tenant=self.tenant)


def _packed(files: tuple[ListedFile, ...]) -> bytes:
    listed = [{name: getattr(file, name) for name in ListedFile.__slots__} for file in files]
    return zlib.compress(json.dumps(listed, separators=(",", ":")).encode(), level=1)


def _unpacked(packed: bytes) -> list[ListedFile]:
    return [ListedFile(**file) for file in json.loads(zlib.decompress(packed))]


def _pages(job: Job, number: int, version: int, files: int) -> Iterator[str]:
    for page in range((files + PAGE_FILES - 1) // PAGE_FILES):
        yield _page(job, number, version, page)


def _page(job: Job, number: int, version: int, page: int) -> str:
    return f"{job.id}.{number}.{version}.{page}"
