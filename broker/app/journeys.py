"""The journeys, and the routes that lead to them."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI

from broker.app.rooms import Rooms
from broker.ehr.fhir_server import FhirServer
from broker.ehr.id_token import IdTokens
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
from broker.flows.revoke import RevokeHandle
from broker.flows.rotate_handle import RotateHandle
from broker.flows.token import Token
from broker.paging import PageLinks
from broker.store.connection import store_errors
from broker.web.entrance import create_application
from broker.web.fhir import FhirProxy
from broker.web.health import health_routes
from broker.web.launch import launch_routes
from broker.web.oauth import authorize_routes, token_routes
from broker.web.smart import smart_routes


def application(rooms: Rooms, handle_backend: BackendHandle, is_draining: Callable[[], bool]) -> FastAPI:
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
    token = Token(authenticate_app, exchange_code, rotate_handle, handle_backend, audit)
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


def _finish_launch(rooms: Rooms, answer_app: AnswerApp) -> FinishLaunch:
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


def backend_handle(rooms: Rooms) -> BackendHandle:
    """Build the one journey that has flights to close at the end."""
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


def _readiness(rooms: Rooms) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        rooms.audit.check()
        with store_errors():
            await rooms.redis.ping()

    return check
