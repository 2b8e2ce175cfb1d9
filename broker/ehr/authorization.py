"""The authorization request to an EHR, and what comes back (AL-03…AL-18, CB-01…CB-08). Pure."""

from collections.abc import Mapping

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from broker.errors import AccessDenied, EhrMisbehaved, InvalidRequest
from broker.secret import Secret


def authorization_url(
    endpoint: str,
    *,
    client_id: str,
    redirect_uri: str,
    scope: str,
    state: Secret,
    nonce: Secret,
    code_verifier: Secret,
    audience: str,
    launch: str | None,
) -> str:
    """Return the URL to send the browser to: code flow, PKCE S256, `aud` the EHR's FHIR base (AL-11, AL-12).

    `launch` is the EHR's own value, echoed unchanged (AL-06); a standalone launch has none (AL-07).
    """
    url: str = prepare_grant_uri(
        endpoint,
        client_id,
        "code",
        redirect_uri=redirect_uri,
        scope=scope,
        state=state.reveal(),
        aud=audience,
        launch=launch or None,
        nonce=nonce.reveal() if "openid" in scope.split() else None,
        code_challenge=create_s256_code_challenge(code_verifier.reveal()),
        code_challenge_method="S256",
    )
    return url


def parse_callback(parameters: Mapping[str, str], *, issuer: str | None, iss_required: bool) -> Secret:
    """Return the code. `parameters` have been checked to hold none twice (OA-01); `state` is the launches' business.

    Raises `AccessDenied` when the EHR or the person said no, `InvalidRequest` for a mix-up (RFC 9207 §2.4), and
    `EhrMisbehaved` when there is neither code nor error.
    """
    iss = parameters.get("iss")
    if iss_required and iss is None:
        raise InvalidRequest("the callback has no iss although the EHR announces it (CB-08)")
    if iss is not None and issuer is not None and iss != issuer:
        raise InvalidRequest("the callback's iss is not this EHR's issuer (CB-07)")
    if "error" in parameters:
        raise AccessDenied(f"the EHR answered {_code(parameters['error'])}")
    if not parameters.get("code"):
        raise EhrMisbehaved("the callback has neither code nor error")
    return Secret(parameters["code"])


def _code(error: str) -> str:
    """Keep an error code for the operator if it looks like one; what an EHR writes freely is not repeated (CB-05)."""
    return error if error.isascii() and error.replace("_", "").isalpha() and len(error) <= 64 else "an unreadable error"
