"""Exports in the store: kept, waited for, gone on with by whichever replica is asked, and ended."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, cast

from redis.asyncio import Redis

from broker.bulk.file_lists import FileLists
from broker.bulk.job import KEPT_SECONDS, Job, is_job_id, no_such_export
from broker.bulk.turns import UNSEEN_SECONDS, Line
from broker.bulk.waits import FIRST_SECONDS
from broker.clock import Clock
from broker.errors import EhrUnreachable, TooManyExports
from broker.store import keys
from broker.store.connection import Script, store_errors
from broker.store.scripts import script
from broker.vault import RecordContext, Vault

MOST_WAITING: Final = 100
"""Exports in line of one registration at one EHR; and all there are of it, done ones too:"""
MOST_JOBS: Final = 1000
LEARNED_SECONDS: Final = 3600
"""How long after the end of a refusal it is known that this EHR does not take any number of exports."""
AGAIN_SECONDS: Final = 600.0
"""When an end is tried again that the EHR could not be told."""
_ANY_NUMBER: Final = 1 << 53
_SEPARATOR: Final = "/"


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as it was read; what is written goes over that version only."""

    job: Job
    version: int


@dataclass(frozen=True, slots=True)
class Due:
    """A job as the list says it of which jobs will have been abandoned: enough to find it, and to forget it unread."""

    ehr: str
    registration: str
    app: str
    id: str

    @property
    def name(self) -> str:
        """Its name in that list."""
        return _SEPARATOR.join((self.ehr, self.registration, self.app, self.id))


@dataclass(frozen=True, slots=True)
class Jobs:
    """Keeps them."""

    redis: Redis
    vault: Vault
    tenant: str
    clock: Clock
    beginning: Script = field(default_factory=partial(script, "begin_bulk"))
    turning: Script = field(default_factory=partial(script, "take_bulk_turn"))
    claiming: Script = field(default_factory=partial(script, "claim_bulk_poll"))
    writing: Script = field(default_factory=partial(script, "write_bulk"))
    ending: Script = field(default_factory=partial(script, "end_bulk"))
    taking: Script = field(default_factory=partial(script, "take_due"))

    @property
    def files(self) -> FileLists:
        """What their manifests list."""
        return FileLists(self.redis, self.vault, self.tenant)

    async def begin(self, job: Job, *, abandoned_at: float) -> StoredJob:
        """Keep a new job, in line. Raises `TooManyExports`, `StoreUnavailable`."""
        await self.postpone(job, abandoned_at=abandoned_at)
        if not await self._begin(job, MOST_WAITING, MOST_JOBS):
            await self._forget_due(_due(job))
            raise TooManyExports(f"{MOST_WAITING} exports wait, or there are {MOST_JOBS}, at EHR {job.ehr}")
        return StoredJob(job, 1)

    async def keep_again(self, job: Job, *, abandoned_at: float) -> None:
        """Keep a job that was ended here, and could not be at the EHR: it is there, however many are.

        Raises `StoreUnavailable`.
        """
        await self.postpone(job, abandoned_at=abandoned_at)
        await self._begin(job, _ANY_NUMBER, _ANY_NUMBER)
        await self.write(StoredJob(job, 1), job, next_at=abandoned_at)

    async def _begin(self, job: Job, most_waiting: int, most_jobs: int) -> bool:
        on = [keys.bulk_job(job.ehr, job.id), self._list(job, "jobs"), self._list(job, "waiting")]
        args: list[str | int | bytes] = [
            await self._seal(job),
            job.member,
            repr(job.began_at),
            repr(job.began_at + UNSEEN_SECONDS),
            most_waiting,
            most_jobs,
            KEPT_SECONDS * 1000,
        ]
        return bool(await self.beginning(self.redis, on, args))

    async def read(self, ehr: str, id_: str) -> StoredJob:
        """Return a job. Raises `NotFound`, `StoreUnavailable`, `SealBroken`."""
        sealed = version = None
        if is_job_id(id_):
            with store_errors():
                found = self.redis.hmget(keys.bulk_job(ehr, id_), ["sealed", "version"])
                sealed, version = cast("tuple[bytes | None, bytes | None]", await found)
        if sealed is None or version is None:
            raise no_such_export(f"no export {id_[:32]!r} at EHR {ehr}")
        opened = await self.vault.open(self._bound(ehr, id_), sealed)
        return StoredJob(Job.load(opened), int(version))

    async def line(self, job: Job) -> Line:
        """Return who is in line beside this job. Raises `StoreUnavailable`."""
        with store_errors():
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.zcard(self._list(job, "running"))
                for kind in ("waiting", "jobs", "turns"):
                    pipe.zrange(self._list(job, kind), 0, -1, withscores=True)
                pipe.get(self._list(job, "held"))
                running, waiting, present, turns, held = await pipe.execute()
        return Line(running, list(_scores(waiting).items()), _scores(present), _scores(turns), float(held or 0))

    async def take_turn(self, job: Job, limit: int) -> bool:
        """Leave the line, unless `limit` exports run already (0: any number may); True also where that is done."""
        on = [self._list(job, kind) for kind in ("waiting", "running", "turns")]
        args: list[str | int] = [job.member, job.app, repr(self.clock()), limit, KEPT_SECONDS * 1000]
        return bool(await self.turning(self.redis, on, args))

    async def hold(self, job: Job, until: float) -> None:
        """Let nobody of the line begin before that time (seconds), and then one by one: the EHR takes no more."""
        with store_errors():
            lasts = LEARNED_SECONDS + max(0, math.ceil(until - self.clock()))
            await self.redis.set(self._list(job, "held"), repr(until), ex=lasts)

    async def claim(self, job: Job, number: int = 0, *, lasts: float) -> float:
        """Become the one who asks the EHR for one of the job's manifests; return 0, or when somebody may (seconds).

        Should the one die, somebody else may after `lasts` seconds.

        Raises `NotFound`, `StoreUnavailable`.
        """
        now = self.clock()
        args = [_next(number), repr(now), repr(now + lasts)]
        said = cast("bytes | None", await self.claiming(self.redis, [keys.bulk_job(job.ehr, job.id)], args))
        if said is None:
            raise no_such_export(f"export {job.id} ended meanwhile")
        return float(said or 0)

    async def write(self, stored: StoredJob, job: Job, *, next_at: float, number: int = 0) -> StoredJob:
        """Write a job as it is now; one of its manifests may be asked for again at `next_at` (seconds).

        Raises `NotFound` when it was ended since it was read, `EhrUnreachable` when somebody else has written it, which
        only happens to who took too long; `StoreUnavailable`.
        """
        place = {"waiting": "waiting", "starting": "running", "running": "running"}.get(job.state, "")
        args: list[str | int | bytes] = [
            stored.version,
            await self._seal(job),
            _next(number),
            repr(next_at),
            job.member,
            repr(job.began_at),
            repr(max(next_at, self.clock()) + UNSEEN_SECONDS),
            place,
            KEPT_SECONDS * 1000,
        ]
        said = await self.writing(self.redis, self._keys(job), args)
        if said is None:
            raise no_such_export(f"export {job.id} was ended meanwhile")
        if not said:
            raise EhrUnreachable(f"export {job.id} went on elsewhere meanwhile", retry_after=FIRST_SECONDS, ours=True)
        return replace(stored, job=job, version=stored.version + 1)

    async def end(self, job: Job) -> None:
        """Forget a job. Raises `StoreUnavailable`."""
        await self.forget(_due(job))

    async def postpone(self, job: Job, *, abandoned_at: float) -> None:
        """Its app asked for it: it is not abandoned before that time (seconds). Raises `StoreUnavailable`."""
        with store_errors():
            await self.redis.zadd(keys.BULK_DUE, {_due(job).name: abandoned_at})

    async def take_abandoned(self, *, again: float, most: int) -> list[Due]:
        """Return what was abandoned by now, each to one replica; it comes up `again` then, unless it was forgotten.

        Raises `StoreUnavailable`.
        """
        (found,) = await self.taking(self.redis, [keys.BULK_DUE], [repr(self.clock()), repr(again), most, most])
        return [Due(*name.decode().split(_SEPARATOR)) for name in found]

    async def forget(self, due: Due) -> None:
        """Take it out of every list: one that ended, that expired or never came about, or that nobody can read.

        Raises `StoreUnavailable`.
        """
        lists = [keys.bulk_list(due.ehr, kind, due.registration) for kind in ("jobs", "waiting", "running")]
        await self.ending(self.redis, [keys.bulk_job(due.ehr, due.id), *lists], [f"{due.app}:{due.id}"])
        await self._forget_due(due)

    async def _forget_due(self, due: Due) -> None:
        with store_errors():
            await self.redis.zrem(keys.BULK_DUE, due.name)

    async def _seal(self, job: Job) -> bytes:
        return await self.vault.seal(self._bound(job.ehr, job.id), job.dump(), ehr=job.ehr)

    def _bound(self, ehr: str, id_: str) -> RecordContext:
        return RecordContext(kind="bulk", id=f"{ehr}:{id_}", tenant=self.tenant)

    def _list(self, job: Job, kind: str) -> str:
        return keys.bulk_list(job.ehr, kind, job.registration)

    def _keys(self, job: Job) -> list[str]:
        return [keys.bulk_job(job.ehr, job.id), *(self._list(job, kind) for kind in ("jobs", "waiting", "running"))]


def turn_seconds(timeout: float) -> float:
    """Return how long one who asks the EHR may take: it asks twice at most, and may have a token renewed before."""
    return 2 * timeout + 60.0


def _next(number: int) -> str:
    return f"next:{number}"


def _due(job: Job) -> Due:
    return Due(job.ehr, job.registration, job.app, job.id)


def _scores(found: list[tuple[bytes, float]]) -> Mapping[str, float]:
    return {name.decode(): float(score) for name, score in found}
