"""The authorization request to an EHR, and what comes back (AL-03…AL-18, CB-01…CB-08, OA-22). Pure."""

from collections.abc import Mapping
from typing import Final, Literal

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from broker.egress import Answer
from broker.ehr.endpoints import Endpoints, parse_json_object
from broker.ehr.error_uri import ehr_error_code
from broker.ehr.token_answer import failure_of
from broker.errors import AccessDenied, EhrMisbehaved, InvalidRequest
from broker.profiles import Profile
from broker.secret import Secret

LONGEST_URL_BYTES: Final = 2048
"""Above this, another way than the address line is looked for (AL-15); IIS, for one, takes no longer query."""
Delivery = Literal["query", "form", "pushed"]


def authorization_request(
    *,
    client_id: str,
    redirect_uri: str,
    scope: str,
    state: Secret,
    nonce: Secret,
    code_verifier: Secret,
    audience: str | None,
    resource: str | None,
    launch: str | None,
) -> dict[str, str]:
    """Return the parameters: code flow, PKCE S256 (AL-03, AL-12), a nonce with openid (AL-18), never max_age (AL-17).

    `launch` is the EHR's own value, echoed unchanged (AL-06); a standalone launch has none (AL-07).
    """
    parameters = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": state.reveal(),
        "aud": audience,
        "resource": resource,
        "launch": launch,
        "nonce": nonce.reveal() if "openid" in scope.split() else None,
        "code_challenge": create_s256_code_challenge(code_verifier.reveal()),
        "code_challenge_method": "S256",
    }
    return {name: value for name, value in parameters.items() if value}


def authorization_url(endpoint: str, request: Mapping[str, str]) -> str:
    """Return the URL to send the browser to; a query that the endpoint has stays."""
    url: str = add_params_to_uri(endpoint, list(request.items()))
    return url


def pushed_url(endpoint: str, client_id: str, request_uri: Secret) -> str:
    """Return the URL for a request that was pushed: who asks, and where the request lies (RFC 9126 §4)."""
    return authorization_url(endpoint, {"client_id": client_id, "request_uri": request_uri.reveal()})


def audience(profile: Profile, fhir_base: str) -> str | None:
    """Return `aud`: the FHIR base byte for byte (AL-11), unless the vendor wants another or none (Q7, OT-02)."""
    if profile.authorize_audience == "omit":
        return None
    wanted = fhir_base if profile.authorize_audience == "fhir_base" else profile.authorize_audience
    if profile.audience_slash == "keep":
        return wanted
    return wanted.rstrip("/") + ("/" if profile.audience_slash == "add" else "")


def choose_delivery(url: str, endpoints: Endpoints, profile: Profile, *, launched_by_ehr: bool) -> Delivery:
    """Return how the request goes: pushed where the EHR demands it, else a long one by form or pushed (AL-14, AL-15).

    Raises `EhrMisbehaved` when it demands what it does not offer (RFC 9126 §5).
    """
    pushed = endpoints.pushed_authorization_request_endpoint is not None
    if endpoints.pushed_requests_required:
        if not pushed:
            raise EhrMisbehaved("pushed requests are demanded, and no endpoint for them is named (OA-22)")
        return "pushed"
    if len(url) <= LONGEST_URL_BYTES:
        return "query"
    by_form = {"never": False, "ehr_launch": launched_by_ehr, "any_launch": True}[profile.authorize_post]
    if by_form and endpoints.has("authorize-post"):
        return "form"
    return "pushed" if pushed else "query"


def parse_pushed(answer: Answer) -> Secret:
    """Return the `request_uri` of a pushed request (RFC 9126 §2.2).

    Raises `EhrRefused`, `EhrUnreachable` for "later", `EhrMisbehaved`; nothing was used up by any of them.
    """
    document = parse_json_object(answer.body) or {}
    request_uri = document.get("request_uri")
    if answer.status in {200, 201} and isinstance(request_uri, str) and request_uri:
        return Secret(request_uri)
    failure = failure_of(answer, document, "pushed request")
    raise failure or EhrMisbehaved(f"a pushed request was answered with status {answer.status} and no request_uri")


def parse_callback(parameters: Mapping[str, str], *, issuer: str | None, iss_required: bool) -> Secret:
    """Return the code. `parameters` have been checked to hold none twice (OA-01); `state` is the launches' business.

    Raises `AccessDenied` when the EHR or the person said no, `InvalidRequest` for a mix-up (RFC 9207 §2.4), and
    `EhrMisbehaved` when there is neither code nor error, or no issuer to compare a required `iss` with.
    """
    iss = parameters.get("iss")
    if iss_required and iss is None:
        raise InvalidRequest("the callback has no iss although the EHR announces it (CB-08)")
    if iss_required and issuer is None:
        raise EhrMisbehaved("the EHR announces iss in callbacks, and names no issuer to compare it with (CB-08)")
    if iss is not None and issuer is not None and iss != issuer:
        raise InvalidRequest("the callback's iss is not this EHR's issuer (CB-07)")
    if "error" in parameters:
        known = ehr_error_code(parameters.get("error_uri"))
        raise AccessDenied(f"the EHR answered {_code(parameters['error'])}{f' ({known})' if known else ''}")
    if not parameters.get("code"):
        raise EhrMisbehaved("the callback has neither code nor error")
    return Secret(parameters["code"])


def _code(error: str) -> str:
    """Keep an error code for the operator if it looks like one; what an EHR writes freely is not repeated (CB-05)."""
    return error if error.isascii() and error.replace("_", "").isalpha() and len(error) <= 64 else "an unreadable error"
