"""The journeys, and the routes that lead to them."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI

from broker.app.bulk import export_routes
from broker.app.rooms import Rooms
from broker.audit import AuditRecord, AuditTrail, Event
from broker.dpop import Nonces
from broker.ehr.fhir_server import FhirServer
from broker.flows.answer_app import AnswerApp
from broker.flows.ask_ehr import AskEhr
from broker.flows.authenticate_app import AuthenticateApp
from broker.flows.authorize_app import AuthorizeApp
from broker.flows.backend_handle import BackendHandle
from broker.flows.begin_launch import BeginLaunch
from broker.flows.begin_reauthorization import BeginReauthorization
from broker.flows.check_dpop import CheckDpop
from broker.flows.describe_ehr import DescribeEhr
from broker.flows.describe_server import DescribeServer
from broker.flows.exchange_code import ExchangeCode
from broker.flows.exchange_handle import ExchangeHandle
from broker.flows.finish_launch import FinishLaunch
from broker.flows.forward import Forward
from broker.flows.introspect import Introspect
from broker.flows.issue_handle import IssueHandle
from broker.flows.make_grant import MakeGrant
from broker.flows.proof.key_sets import KeySets
from broker.flows.proof.private_key_jwt import PrivateKeyJwt
from broker.flows.proof.workload_identity import WorkloadIdentity
from broker.flows.reauthorize_grant import ReauthorizeGrant
from broker.flows.register_dynamic_client import RegisterDynamicClient
from broker.flows.revoke import RevokeHandle
from broker.flows.rotate_handle import RotateHandle
from broker.flows.searchable import SearchableParameters
from broker.flows.tell_identity import TellIdentity
from broker.flows.token import Token
from broker.grants.backend_grants import BackendGrants
from broker.grants.reauthorizing import Reauthorizing
from broker.paging import PageLinks
from broker.policy import EffectiveScopes
from broker.refresh.trail import RefreshTrail
from broker.settings.deployment import CertificateHeader
from broker.store.connection import store_errors
from broker.web.arrival import Arrivals
from broker.web.client_certificate import ClientCertificates
from broker.web.cors import Cors
from broker.web.entrance import create_application
from broker.web.fhir import FhirProxy
from broker.web.health import health_routes
from broker.web.launch import launch_routes
from broker.web.oauth import Authenticate, authorize_routes, token_routes
from broker.web.parameters import Parameters
from broker.web.reauthorize import reauthorize_routes
from broker.web.smart import server_routes, smart_routes


def application(
    rooms: Rooms,
    handle_backend: BackendHandle,
    certificate_header: CertificateHeader | None,
    is_draining: Callable[[], bool],
) -> FastAPI:
    """Build the journeys and the routes that lead to them."""
    directory, audit, handles = rooms.directory, rooms.audit, rooms.handles
    ask_ehr = _ask_ehr(rooms)
    answer_app = AnswerApp(rooms.codes, rooms.entropy, issuer=rooms.settings.public_url)
    tell_identity = _tell_identity(rooms)
    issue_handle = IssueHandle(directory, handles, tell_identity)
    certificates = ClientCertificates(certificate_header, _report_to(audit, "app.authenticate"))
    arrivals = Arrivals(certificates, rooms.clock)
    exchange_code = ExchangeCode(directory, rooms.codes, rooms.grants, issue_handle, tell_identity)
    rotate_handle = RotateHandle(handles, rooms.grants, issue_handle)
    exchange_handle = ExchangeHandle(directory, handles, rooms.exchanged_handles, tell_identity, rooms.clock)
    check_dpop = _check_dpop(rooms)
    token = Token(exchange_code, rotate_handle, handle_backend, exchange_handle, check_dpop, audit)
    authorize_app = AuthorizeApp(directory, rooms.launches, rooms.codes, rooms.grants, ask_ehr, answer_app, audit)
    introspect = Introspect(directory, handles, tell_identity, check_dpop, audit)
    revoke_handle = RevokeHandle(handles, audit)
    describe_server = DescribeServer(directory, rooms.discovery, rooms.clock)
    describe_ehr = DescribeEhr(directory, rooms.egress, rooms.clock)
    page_links, fhir_server = PageLinks(rooms.keyed_hash, rooms.entropy), FhirServer(rooms.egress, rooms.dpop_proofs)
    forward = _forward(rooms, fhir_server, page_links, check_dpop, describe_ehr)
    begin_launch, finish_launch = BeginLaunch(directory, ask_ehr, audit), _finish_launch(rooms, answer_app)
    begin_reauthorization = BeginReauthorization(directory, rooms.grants, rooms.reauthorizations, ask_ehr, audit)
    public_url, parameters = rooms.settings.public_url, Parameters(_report_to(audit, "request.unreadable"))
    authenticate = Authenticate(_authenticate_app(rooms), certificates, parameters, public_url)
    return create_application(
        [
            token_routes(token, introspect, revoke_handle, authenticate, parameters, arrivals),  # asked most, so first
            server_routes(describe_server, rooms.identity_key),
            smart_routes(describe_server, describe_ehr, rooms.signing_keys, directory),
            launch_routes(begin_launch, finish_launch, directory, parameters),
            reauthorize_routes(begin_reauthorization, public_url=public_url),
            authorize_routes(authorize_app, parameters, public_url=public_url),
            export_routes(rooms, check_dpop, arrivals),
            health_routes(_readiness(rooms), is_draining),
        ],
        FhirProxy(forward, arrivals),
        Cors(directory.apps),
        certificates,
    )


def _forward(
    rooms: Rooms, fhir_server: FhirServer, page_links: PageLinks, check_dpop: CheckDpop, describe_ehr: DescribeEhr
) -> Forward:
    return Forward(
        rooms.directory,
        rooms.handles,
        rooms.refresher,
        fhir_server,
        page_links,
        check_dpop,
        SearchableParameters(describe_ehr),
        EffectiveScopes(rooms.directory.app),
        rooms.fair_use,
        rooms.audit,
    )


def _ask_ehr(rooms: Rooms) -> AskEhr:
    return AskEhr(
        rooms.directory,
        rooms.discovery,
        rooms.scope_words,
        rooms.token_endpoint,
        rooms.signing_keys,
        rooms.launches,
        rooms.audit,
    )


def _authenticate_app(rooms: Rooms) -> AuthenticateApp:
    key_sets, clock, settings = KeySets(rooms.egress, rooms.clock), rooms.clock, rooms.settings
    private_key_jwt = PrivateKeyJwt(rooms.shared, key_sets, rooms.keyed_hash, clock, settings.public_url)
    workload_identity = WorkloadIdentity(settings.issuer, key_sets, clock)
    return AuthenticateApp(rooms.directory, private_key_jwt, workload_identity, rooms.last_used, rooms.audit, clock)


def _check_dpop(rooms: Rooms) -> CheckDpop:
    settings, nonces = rooms.settings, Nonces(rooms.keyed_hash)
    return CheckDpop(
        rooms.redis, rooms.keyed_hash, settings.public_url, nonces if settings.dpop_nonce else None, rooms.clock
    )


def _report_to(audit: AuditTrail, event: Event) -> Callable[[str, str], None]:
    def report(cause: str, request_id: str) -> None:
        audit.record(AuditRecord(event=event, outcome="denied", reason=cause, request_id=request_id))

    return report


def _finish_launch(rooms: Rooms, answer_app: AnswerApp) -> FinishLaunch:
    return FinishLaunch(
        directory=rooms.directory,
        discovery=rooms.discovery,
        token_endpoint=rooms.token_endpoint,
        gate=rooms.gate,
        signing_keys=rooms.signing_keys,
        launches=rooms.launches,
        make_grant=_make_grant(rooms),
        codes=rooms.codes,
        answer_app=answer_app,
        audit=rooms.audit,
    )


def _make_grant(rooms: Rooms) -> MakeGrant:
    return MakeGrant(
        rooms.directory,
        rooms.id_tokens,
        rooms.grants,
        rooms.schedule,
        rooms.ehr_side,
        RegisterDynamicClient(rooms.directory, rooms.dynamic_clients, rooms.refresher, rooms.audit, rooms.clock),
        ReauthorizeGrant(
            rooms.grants,
            Reauthorizing(rooms.redis, rooms.grants.untold, rooms.clock),
            RefreshTrail(rooms.audit),
        ),
        rooms.audit,
        rooms.clock,
        rooms.entropy,
    )


def backend_handle(rooms: Rooms) -> BackendHandle:
    """Build the one journey that has flights to close at the end."""
    return BackendHandle(
        directory=rooms.directory,
        discovery=rooms.discovery,
        scope_words=rooms.scope_words,
        token_endpoint=rooms.token_endpoint,
        gate=rooms.gate,
        signing_keys=rooms.signing_keys,
        grants=rooms.grants,
        backend_grants=BackendGrants(
            rooms.redis, rooms.shared, rooms.grants, rooms.keyed_hash, rooms.clock, rooms.entropy
        ),
        schedule=rooms.schedule,
        issue_handle=IssueHandle(rooms.directory, rooms.handles, _tell_identity(rooms)),
        audit=rooms.audit,
        clock=rooms.clock,
        entropy=rooms.entropy,
    )


def _tell_identity(rooms: Rooms) -> TellIdentity:
    return TellIdentity(rooms.directory, rooms.identity_key, rooms.keyed_hash, rooms.clock)


def _readiness(rooms: Rooms) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        rooms.audit.check()
        with store_errors():
            await rooms.redis.ping()

    return check
