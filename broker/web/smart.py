"""What anybody may read: where to authorize, what the EHR can do, and the broker's public keys."""

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from broker.apps import Directory
from broker.errors import BrokerError
from broker.flows.describe_ehr import DescribeEhr
from broker.flows.describe_server import DescribeServer
from broker.keys.identity import IdentityKey
from broker.keys.signing import SigningKeys
from broker.web.errors import fhir_error, oauth_error, problem
from broker.web.parameters import request_id

_CACHE = {"Cache-Control": "public, max-age=300"}


def server_routes(describe_server: DescribeServer, identity_key: IdentityKey) -> APIRouter:
    """Build the documents about the broker as a whole."""
    router = APIRouter(tags=["discovery"])

    @router.get("/.well-known/oauth-authorization-server")
    async def authorization_server() -> Response:
        """Authorization server metadata (RFC 8414)."""
        return JSONResponse(describe_server.authorization_server(), headers=_CACHE)

    @router.get("/.well-known/openid-configuration")
    async def openid_configuration() -> Response:
        """The same, where OpenID Connect looks for it (ID-02)."""
        return JSONResponse(describe_server.authorization_server(), headers=_CACHE)

    @router.get("/oauth/jwks")
    async def identity_jwks(request: Request) -> Response:
        """JWK Set that id_tokens verify with (ID-05)."""
        try:
            key_set = await identity_key.public_jwks()
        except BrokerError as error:
            return oauth_error(error, request_id=request_id(request.headers))
        return JSONResponse(key_set, headers=_CACHE)

    return router


def smart_routes(
    describe_server: DescribeServer, describe_ehr: DescribeEhr, signing_keys: SigningKeys, directory: Directory
) -> APIRouter:
    """Build the documents about one EHR or registration."""
    router = APIRouter(tags=["discovery"])

    @router.get("/fhir/{ehr}/.well-known/smart-configuration")
    async def smart_configuration(ehr: str, request: Request) -> Response:
        """SMART configuration of the broker for one EHR (SMART 2.2)."""
        try:
            return JSONResponse(await describe_server.smart_configuration(ehr), headers=_CACHE)
        except BrokerError as error:
            return fhir_error(error, request_id=request_id(request.headers))

    @router.get("/fhir/{ehr}/metadata")
    async def metadata(ehr: str, request: Request) -> Response:
        """The EHR's CapabilityStatement with endpoints and security pointing at the broker."""
        try:
            return Response(await describe_ehr.metadata(ehr), headers=_CACHE, media_type="application/fhir+json")
        except BrokerError as error:
            return fhir_error(error, request_id=request_id(request.headers))

    @router.get("/jwks/{registration}")
    async def jwks(registration: str, request: Request) -> Response:
        """JWK Set of one registration: what its EHR fetches (RG-03…RG-06)."""
        try:
            key_set = await signing_keys.fetched_jwks(directory.registration(registration))
        except BrokerError as error:
            return problem(error, request_id=request_id(request.headers))
        return JSONResponse(key_set, headers=_CACHE)

    return router
