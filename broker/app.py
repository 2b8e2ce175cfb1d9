"""The composition root: settings → store → vault → rooms → application. The only place that builds."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from redis.asyncio import Redis

from broker.apps import Directory
from broker.audit import STREAM_KEY, AuditRecord, AuditTrail, Ship
from broker.clock import Clock, Entropy, system_clock, system_entropy
from broker.codes import Codes
from broker.credentials import KeyedHash
from broker.egress import Egress
from broker.ehr.discovery import Discovery
from broker.ehr.fhir_server import FhirServer
from broker.ehr.id_token import IdTokens
from broker.ehr.token_endpoint import TokenEndpoint
from broker.flows.answer_app import AnswerApp
from broker.flows.app_keys import AppKeys
from broker.flows.ask_ehr import AskEhr
from broker.flows.authenticate_app import AuthenticateApp
from broker.flows.authorize_app import AuthorizeApp
from broker.flows.backend_handle import BackendHandle
from broker.flows.begin_launch import BeginLaunch
from broker.flows.describe_ehr import DescribeEhr
from broker.flows.exchange_code import ExchangeCode
from broker.flows.finish_launch import FinishLaunch
from broker.flows.forward import Forward
from broker.flows.introspect import Introspect
from broker.flows.issue_handle import IssueHandle
from broker.flows.revoke import RevokeGrant, RevokeHandle
from broker.flows.rotate_handle import RotateHandle
from broker.flows.token import Token
from broker.grants import Grants
from broker.handles import Handles
from broker.issued import IssuedRecords
from broker.keys.sealed import create_once
from broker.keys.signing import SigningKeys
from broker.launches import Launches
from broker.paging import PageLinks
from broker.refresh.current_token import Refresher
from broker.refresh.renewal import Renewal
from broker.settings import Settings
from broker.store.connection import store_errors
from broker.vault import LocalKeyring, RecordContext, Vault
from broker.web.entrance import create_application
from broker.web.fhir import FhirProxy
from broker.web.health import health_routes
from broker.web.launch import launch_routes
from broker.web.oauth import authorize_routes, token_routes
from broker.web.smart import smart_routes

AUDIT_STREAM_LENGTH = 1_000_000
"""Records the Redis stream keeps, roughly; the file keeps all."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker's rooms, as far as somebody outside needs them."""

    settings: Settings
    application: FastAPI
    directory: Directory
    grants: Grants
    handles: Handles
    revoke_grant: RevokeGrant
    audit: AuditTrail


@dataclass(frozen=True, slots=True)
class _Rooms:
    """What journeys are built from: everything below `flows/`."""

    settings: Settings
    redis: Redis
    clock: Clock
    entropy: Entropy
    audit: AuditTrail
    egress: Egress
    keyed_hash: KeyedHash
    directory: Directory
    grants: Grants
    handles: Handles
    codes: Codes
    launches: Launches
    signing_keys: SigningKeys
    discovery: Discovery
    token_endpoint: TokenEndpoint
    refresher: Refresher


@asynccontextmanager
async def open_broker(
    settings: Settings,
    *,
    redis: Redis,
    keys: Sequence[bytes],
    audit_file: Path | None,
    clock: Clock = system_clock,
    entropy: Entropy = system_entropy,
    is_draining: Callable[[], bool] = lambda: False,
) -> AsyncIterator[Broker]:
    """Build every room, and close in reverse what has to be closed. `redis` stays the caller's to close.

    Raises `ConfigurationError`, `StoreUnavailable`, `AuditUnavailable`, `SealBroken` (a wrong key-encryption key).
    """
    async with AsyncExitStack() as closing:
        audit = AuditTrail(file=audit_file, ship=_ship_to(redis), clock=clock)
        vault = Vault(LocalKeyring(keys, entropy), report_broken=_report_to(audit), entropy=entropy)
        egress = Egress(allow_loopback_http=settings.allow_loopback_http)
        closing.push_async_callback(egress.close)
        await audit.open()
        closing.push_async_callback(audit.close)
        rooms = await _open_rooms(settings, redis, vault, audit, egress, clock, entropy)
        closing.push_async_callback(rooms.refresher.close)
        backend_handle = _backend_handle(rooms)
        closing.push_async_callback(backend_handle.flights.close)
        application = _application(rooms, backend_handle, is_draining)
        revoke_grant = RevokeGrant(
            rooms.directory, rooms.grants, rooms.discovery, rooms.token_endpoint, rooms.signing_keys, audit
        )
        yield Broker(settings, application, rooms.directory, rooms.grants, rooms.handles, revoke_grant, audit)


async def _open_rooms(
    settings: Settings,
    redis: Redis,
    vault: Vault,
    audit: AuditTrail,
    egress: Egress,
    clock: Clock,
    entropy: Entropy,
) -> _Rooms:
    async def new_hash_key() -> bytes:
        return entropy(32)

    tenant, directory = settings.tenant, Directory(settings)
    keyed_hash = KeyedHash(await create_once(redis, vault, tenant=tenant, name="hash", make=new_hash_key))
    grants = Grants(redis, vault, tenant=tenant, clock=clock)
    records = IssuedRecords(vault, keyed_hash, tenant=tenant, clock=clock, entropy=entropy)
    handles = Handles(redis, records, grants, clock=clock)
    signing_keys = SigningKeys(redis, vault, tenant=tenant, clock=clock)
    discovery, token_endpoint = Discovery(egress, clock), TokenEndpoint(egress)
    renewal = Renewal(redis, grants, directory, discovery, token_endpoint, signing_keys, audit, clock, entropy)
    return _Rooms(
        settings=settings,
        redis=redis,
        clock=clock,
        entropy=entropy,
        audit=audit,
        egress=egress,
        keyed_hash=keyed_hash,
        directory=directory,
        grants=grants,
        handles=handles,
        codes=Codes(redis, records, handles),
        launches=Launches(redis, vault, keyed_hash, tenant=tenant, entropy=entropy),
        signing_keys=signing_keys,
        discovery=discovery,
        token_endpoint=token_endpoint,
        refresher=Refresher(grants, renewal, clock),
    )


def _application(rooms: _Rooms, backend_handle: BackendHandle, is_draining: Callable[[], bool]) -> FastAPI:
    """Build the journeys and the routes that lead to them."""
    directory, audit, handles = rooms.directory, rooms.audit, rooms.handles
    secure = rooms.settings.public_url.startswith("https://")
    ask_ehr = AskEhr(directory, rooms.discovery, rooms.launches)
    answer_app = AnswerApp(rooms.codes, rooms.entropy)
    issue_handle = IssueHandle(directory, handles, audit)
    app_keys = AppKeys(rooms.egress, rooms.clock)
    authenticate_app = AuthenticateApp(rooms.redis, directory, app_keys, rooms.keyed_hash, audit, clock=rooms.clock)
    exchange_code = ExchangeCode(rooms.codes, rooms.grants, issue_handle)
    rotate_handle = RotateHandle(handles, rooms.grants, issue_handle)
    token = Token(authenticate_app, exchange_code, rotate_handle, backend_handle, audit)
    authorize_app = AuthorizeApp(directory, rooms.launches, rooms.codes, rooms.grants, ask_ehr, answer_app, audit)
    introspect, revoke_handle = Introspect(directory, handles, audit), RevokeHandle(handles, audit)
    describe_ehr = DescribeEhr(directory, rooms.egress, rooms.clock)
    page_links, fhir_server = PageLinks(rooms.keyed_hash), FhirServer(rooms.egress)
    forward = Forward(directory, handles, rooms.refresher, fhir_server, page_links, audit)
    begin_launch, finish_launch = BeginLaunch(directory, ask_ehr, audit), _finish_launch(rooms, answer_app)
    public_url = rooms.settings.public_url
    return create_application(
        [
            smart_routes(describe_ehr, rooms.signing_keys, directory),
            launch_routes(begin_launch, finish_launch, secure=secure),
            authorize_routes(authorize_app, secure=secure),
            token_routes(token, introspect, revoke_handle, authenticate_app, public_url=public_url),
            health_routes(_readiness(rooms), is_draining),
        ],
        FhirProxy(forward),
    )


def _finish_launch(rooms: _Rooms, answer_app: AnswerApp) -> FinishLaunch:
    return FinishLaunch(
        directory=rooms.directory,
        discovery=rooms.discovery,
        token_endpoint=rooms.token_endpoint,
        id_tokens=IdTokens(rooms.egress, rooms.discovery, rooms.clock),
        signing_keys=rooms.signing_keys,
        launches=rooms.launches,
        grants=rooms.grants,
        codes=rooms.codes,
        answer_app=answer_app,
        audit=rooms.audit,
        clock=rooms.clock,
        entropy=rooms.entropy,
    )


def _backend_handle(rooms: _Rooms) -> BackendHandle:
    return BackendHandle(
        redis=rooms.redis,
        directory=rooms.directory,
        discovery=rooms.discovery,
        token_endpoint=rooms.token_endpoint,
        signing_keys=rooms.signing_keys,
        grants=rooms.grants,
        issue_handle=IssueHandle(rooms.directory, rooms.handles, rooms.audit),
        audit=rooms.audit,
        keyed_hash=rooms.keyed_hash,
        clock=rooms.clock,
        entropy=rooms.entropy,
    )


def _readiness(rooms: _Rooms) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        rooms.audit.check()
        with store_errors():
            await rooms.redis.ping()

    return check


def _ship_to(redis: Redis) -> Ship:
    async def ship(lines: Sequence[str]) -> None:
        with store_errors():
            async with redis.pipeline(transaction=False) as pipe:
                for line in lines:
                    pipe.xadd(STREAM_KEY, {"record": line}, maxlen=AUDIT_STREAM_LENGTH, approximate=True)
                await pipe.execute()

    return ship


def _report_to(audit: AuditTrail) -> Callable[[RecordContext, str], None]:
    def report(context: RecordContext, detail: str) -> None:
        audit.record(AuditRecord(event="seal.broken", outcome="denied", reason=f"{context.kind}: {detail}"))

    return report
