"""The composition root: settings → store → vault → rooms → application. The only place that builds."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
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
    audit = AuditTrail(file=audit_file, ship=_ship_to(redis), clock=clock)
    vault = Vault(LocalKeyring(keys, entropy), report_broken=_report_to(audit), entropy=entropy)
    egress = Egress(allow_loopback_http=settings.allow_loopback_http)
    await audit.open()
    try:

        async def new_hash_key() -> bytes:
            return entropy(32)

        hash_key = await create_once(redis, vault, tenant=settings.tenant, name="hash", make=new_hash_key)
        keyed_hash = KeyedHash(hash_key)

        tenant, directory = settings.tenant, Directory(settings)
        grants = Grants(redis, vault, tenant=tenant, clock=clock)
        records = IssuedRecords(vault, keyed_hash, tenant=tenant, clock=clock, entropy=entropy)
        handles = Handles(redis, records, grants, clock=clock)
        codes = Codes(redis, records, handles)
        launches = Launches(redis, vault, keyed_hash, tenant=tenant, entropy=entropy)
        signing_keys = SigningKeys(redis, vault, tenant=tenant, clock=clock)

        discovery, token_endpoint = Discovery(egress, clock), TokenEndpoint(egress)
        id_tokens = IdTokens(egress, discovery, clock)
        renewal = Renewal(
            redis, grants, directory, discovery, token_endpoint, signing_keys, audit, clock=clock, entropy=entropy
        )
        refresher = Refresher(grants, renewal, clock)

        ask_ehr = AskEhr(directory, discovery, launches)
        answer_app = AnswerApp(codes, entropy)
        issue_handle = IssueHandle(directory, handles, audit)
        authenticate_app = AuthenticateApp(redis, directory, AppKeys(egress, clock), keyed_hash, audit, clock=clock)
        backend_handle = BackendHandle(
            redis=redis,
            directory=directory,
            discovery=discovery,
            token_endpoint=token_endpoint,
            signing_keys=signing_keys,
            grants=grants,
            issue_handle=issue_handle,
            audit=audit,
            keyed_hash=keyed_hash,
            clock=clock,
            entropy=entropy,
        )
        finish_launch = FinishLaunch(
            directory=directory,
            discovery=discovery,
            token_endpoint=token_endpoint,
            id_tokens=id_tokens,
            signing_keys=signing_keys,
            launches=launches,
            grants=grants,
            codes=codes,
            answer_app=answer_app,
            audit=audit,
            clock=clock,
            entropy=entropy,
        )
        authorize_app = AuthorizeApp(directory, launches, codes, grants, ask_ehr, answer_app, audit)
        token = Token(
            authenticate_app,
            ExchangeCode(codes, grants, issue_handle),
            RotateHandle(handles, grants, issue_handle),
            backend_handle,
            audit,
        )
        revoke_grant = RevokeGrant(directory, grants, discovery, token_endpoint, signing_keys, audit)
        forward = Forward(directory, handles, refresher, FhirServer(egress), PageLinks(keyed_hash), audit)

        async def check_ready() -> None:
            audit.check()
            with store_errors():
                await redis.ping()

        secure = settings.public_url.startswith("https://")
        application = create_application(
            [
                smart_routes(DescribeEhr(directory, egress, clock), signing_keys, directory),
                launch_routes(BeginLaunch(directory, ask_ehr, audit), finish_launch, secure=secure),
                authorize_routes(authorize_app, secure=secure),
                token_routes(
                    token,
                    Introspect(directory, handles, audit),
                    RevokeHandle(handles, audit),
                    authenticate_app,
                    public_url=settings.public_url,
                ),
                health_routes(check_ready, is_draining),
            ],
            FhirProxy(forward),
        )
        try:
            yield Broker(settings, application, directory, grants, handles, revoke_grant, audit)
        finally:
            await backend_handle.flights.close()
            await refresher.close()
    finally:
        await audit.close()
        await egress.close()


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
