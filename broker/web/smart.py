"""What anybody may read: where to authorize, what the EHR can do, and the broker's public keys."""

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from broker.apps import Directory
from broker.errors import BrokerError
from broker.flows.describe_ehr import DescribeEhr
from broker.keys.signing import SigningKeys
from broker.web.errors import fhir_error, problem
from broker.web.parameters import request_id

_CACHE = {"Cache-Control": "public, max-age=300"}


def smart_routes(describe_ehr: DescribeEhr, signing_keys: SigningKeys, directory: Directory) -> APIRouter:
    """Build the public documents."""
    router = APIRouter(tags=["discovery"])

    @router.get("/fhir/{ehr}/.well-known/smart-configuration")
    async def smart_configuration(ehr: str, request: Request) -> Response:
        """SMART configuration of the broker for one EHR (SMART 2.2)."""
        try:
            return JSONResponse(describe_ehr.smart_configuration(ehr), headers=_CACHE)
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
            key_set = await signing_keys.public_jwks(directory.registration(registration))
        except BrokerError as error:
            return problem(error, request_id=request_id(request.headers))
        return JSONResponse(key_set, headers=_CACHE)

    return router
