"""The composition root: settings → store → vault → rooms → journeys → application. The only place that builds."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from redis.asyncio import Redis

from broker.app.bulk import end_abandoned
from broker.app.journeys import application, backend_handle
from broker.app.rooms import Rooms, open_rooms
from broker.app.trail import report_to, ship_to
from broker.app.way_out import open_egress
from broker.app.webhooks import telling_of
from broker.apps import Directory
from broker.audit import AuditTrail
from broker.bulk import Jobs
from broker.clock import Clock, Entropy, system_entropy
from broker.errors import ConfigurationError
from broker.flows.bulk.abandon import EndAbandoned
from broker.flows.describe_registration import DescribeRegistration
from broker.flows.forecast import ForecastGrants
from broker.flows.introspect_grant import IntrospectGrant
from broker.flows.offer_reauthorization import OfferReauthorization
from broker.flows.proof.last_used import LastUsed
from broker.flows.revoke import RevokeGrant
from broker.grants import Grants
from broker.handles import Handles
from broker.keys.rings import Rings
from broker.keys.secrets import ClientSecrets
from broker.keys.signing import SigningKeys
from broker.keys.tending import Tending
from broker.kms.opening import without_signing
from broker.kms.signing import NoSigning, RemoteSigning
from broker.pins import Pins
from broker.refresh.gate import Gate
from broker.refresh.keeper import Keeper
from broker.refresh.trail import RefreshTrail
from broker.settings import Settings
from broker.settings.deployment import CertificateHeader
from broker.store.clock import StoreClock
from broker.vault import DomainKeys, DomainRecords, KeyEncryptionKeys, Vault
from broker.webhooks import Telling
from broker.witness import Witness

KEEP_SECONDS = 1.0
"""Between two looks at what is due."""
WITNESS_SECONDS = 1.0
"""Between two looks at whether the store has gone back in time."""
TEND_SECONDS = 30.0
"""Between two looks at signing keys and client secrets."""
ABANDON_SECONDS = 30.0
"""Between two looks at exports that nobody asks for any more."""
TELL_SECONDS = 1.0
"""Between two looks at what webhooks are to be told."""
_STOP_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker's rooms, as far as somebody outside needs them."""

    settings: Settings
    application: FastAPI
    directory: Directory
    grants: Grants
    handles: Handles
    revoke_grant: RevokeGrant
    introspect_grant: IntrospectGrant
    offer_reauthorization: OfferReauthorization
    forecast_grants: ForecastGrants
    keeper: Keeper
    telling: Telling
    exports: Jobs
    end_abandoned: EndAbandoned
    audit: AuditTrail
    pins: Pins
    describe_registration: DescribeRegistration
    signing_keys: SigningKeys
    client_secrets: ClientSecrets
    rings: Rings
    tending: Tending
    last_used: LastUsed
    witness: Witness
    clock: Clock
    gate: Gate


@asynccontextmanager
async def open_broker(
    settings: Settings,
    *,
    redis: Redis,
    kek: KeyEncryptionKeys,
    signing: RemoteSigning | None = None,
    audit_file: Path | None,
    certificate_header: CertificateHeader | None = None,
    clock: Clock | None = None,
    entropy: Entropy = system_entropy,
    is_draining: Callable[[], bool] = lambda: False,
    keep_every: float | None = KEEP_SECONDS,
    witness_file: Path | None = None,
) -> AsyncIterator[Broker]:
    """Build every room, and close in reverse what has to be closed.

    `redis`, `kek` and `signing` stay the caller's to close; without `signing`, no registration may have its key at a
    key-management service.

    `certificate_header` is how declared proxies pass on apps' certificates; without it no app authenticates by one.
    Every `keep_every` seconds what is due is renewed (RF-06), until it is draining; None leaves that to others.
    Without a `clock`, time is the store's. `witness_file` is where this replica keeps how far the store was when it
    last looked.

    Raises `ConfigurationError`, `StoreUnavailable`, `AuditUnavailable`, `SealBroken` (a wrong key-encryption key).
    """
    signing = signing or NoSigning()
    if faults := without_signing(settings.registration, signing):
        raise ConfigurationError(*faults)
    async with AsyncExitStack() as closing:
        if clock is None:
            clock = await _store_clock(redis, closing)
        audit = AuditTrail(file=audit_file, ship=ship_to(redis), clock=clock)
        domain_keys = DomainKeys(DomainRecords(redis), kek, clock=clock, entropy=entropy)
        vault = Vault(domain_keys, tenant=settings.tenant, report_broken=report_to(audit), entropy=entropy)
        egress = open_egress(settings)
        closing.push_async_callback(egress.close)
        closing.push_async_callback(domain_keys.close)
        await audit.open()
        closing.push_async_callback(audit.close)
        witness = Witness(redis, witness_file, audit, clock, entropy)
        await witness.open()
        rooms = await open_rooms(settings, redis, vault, signing, audit, egress, witness, clock, entropy)
        closing.push_async_callback(rooms.shared.close)
        closing.push_async_callback(rooms.grants.untold.close)
        closing.push_async_callback(rooms.signing_keys.close)
        closing.push_async_callback(rooms.client_secrets.close)
        closing.push_async_callback(rooms.gate.close)
        closing.push_async_callback(rooms.fair_use.close)
        closing.push_async_callback(rooms.refresher.close)
        closing.push_async_callback(rooms.last_used.close)
        telling, handle_backend = telling_of(rooms), backend_handle(rooms)
        closing.push_async_callback(handle_backend.flights.close)
        keeper = Keeper(rooms.grants, rooms.directory, rooms.refresher, rooms.schedule, clock)
        if keep_every is not None:
            keeping = asyncio.create_task(keeper.run(keep_every, is_draining), name="keeper")
            closing.push_async_callback(_finish, keeper, keeping)
            for work in _beside_requests(rooms, telling, is_draining):
                closing.push_async_callback(_stop, work)
        yield _broker(rooms, application(rooms, handle_backend, certificate_header, is_draining), keeper, telling)


def _beside_requests(rooms: Rooms, telling: Telling, is_draining: Callable[[], bool]) -> Iterator[asyncio.Task[None]]:
    """Start what goes on beside requests and can be cut off at any time."""
    yield asyncio.create_task(rooms.witness.run(WITNESS_SECONDS), name="witness")
    yield asyncio.create_task(rooms.tending.run(TEND_SECONDS, is_draining), name="tending")
    yield asyncio.create_task(end_abandoned(rooms).run(ABANDON_SECONDS, is_draining), name="abandoned exports")
    for work in telling.work(TELL_SECONDS, is_draining):
        yield asyncio.create_task(work, name="webhooks")


def _broker(rooms: Rooms, application: FastAPI, keeper: Keeper, telling: Telling) -> Broker:
    return Broker(
        rooms.settings,
        application,
        rooms.directory,
        rooms.grants,
        rooms.handles,
        RevokeGrant(rooms.grants, rooms.ehr_side, rooms.audit),
        IntrospectGrant(rooms.redis, rooms.grants, rooms.ehr_side, rooms.audit),
        OfferReauthorization(
            rooms.directory, rooms.grants, rooms.reauthorizations, RefreshTrail(rooms.audit), rooms.clock
        ),
        ForecastGrants(rooms.directory, rooms.grants, rooms.refresher.renewal.ends, rooms.clock),
        keeper,
        telling,
        rooms.exports,
        end_abandoned(rooms),
        rooms.audit,
        rooms.pins,
        DescribeRegistration(rooms.directory, rooms.discovery, rooms.scope_words, rooms.signing_keys),
        rooms.signing_keys,
        rooms.client_secrets,
        rooms.rings,
        rooms.tending,
        rooms.last_used,
        rooms.witness,
        rooms.clock,
        rooms.gate,
    )


async def _finish(keeper: Keeper, keeping: asyncio.Task[None]) -> None:
    keeper.stop()
    await asyncio.gather(keeping, return_exceptions=True)


async def _store_clock(redis: Redis, closing: AsyncExitStack) -> Clock:
    """Follow the store's clock until closing."""
    clock = StoreClock()
    await clock.measure(redis)
    closing.push_async_callback(_stop, asyncio.create_task(clock.follow(redis), name="clock"))
    return clock


async def _stop(task: asyncio.Task[None]) -> None:
    """Cancel it until it has ended: redis-py uses `asyncio.wait_for`, which before Python 3.12 can swallow that."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_STOP_SECONDS)
