"""The caller must change something: nothing was done."""

from broker.errors.error import BrokerError


class Refusal(BrokerError):
    """The request is at fault; nothing was changed and nothing was sent upstream."""

    code = "invalid_request"
    status = 400
    oauth = "invalid_request"
    issue = "invalid"
    says = "The request is not valid."


class InvalidRequest(Refusal):
    """A parameter is missing, repeated or malformed (RFC 6749 §5.2)."""


class InvalidClient(Refusal):
    """The app did not prove who it is (RFC 6749 §5.2)."""

    code = "invalid_client"
    status = 401
    oauth = "invalid_client"
    says = "Client authentication failed."


class InvalidGrant(Refusal):
    """The code or refresh handle is unknown, used, expired or another app's (RFC 6749 §5.2)."""

    code = "invalid_grant"
    oauth = "invalid_grant"
    says = "The code or refresh token is not valid: unknown, used, expired, or issued to another client."


class UnauthorizedClient(Refusal):
    """The app's policy does not name this EHR or this way of getting a handle."""

    code = "unauthorized_client"
    oauth = "unauthorized_client"
    says = "This client may not do that."


class InvalidScope(Refusal):
    """The scope is malformed, or nothing of it may be given (RFC 6749 §5.2)."""

    code = "invalid_scope"
    oauth = "invalid_scope"
    says = "The requested scope is malformed or wider than what may be given."


class InvalidTarget(Refusal):
    """`aud` or `resource` is not a FHIR base of this broker (RFC 8707 §2)."""

    code = "invalid_target"
    oauth = "invalid_target"
    says = "The audience must be a FHIR base URL of this broker, as its smart-configuration is published under."


class InvalidAuthorizationDetails(Refusal):
    """`authorization_details` is malformed, or of a type or for a location that is not offered (RFC 9396 §5)."""

    code = "invalid_authorization_details"
    oauth = "invalid_authorization_details"
    says = "authorization_details must be one entry of type smart_on_fhir whose location is the FHIR base in aud."


class UnsupportedGrantType(Refusal):
    """RFC 6749 §5.2."""

    code = "unsupported_grant_type"
    oauth = "unsupported_grant_type"
    says = "This grant type is not supported."


class UnsupportedResponseType(Refusal):
    """RFC 6749 §4.1.2.1: only `code` exists here."""

    code = "unsupported_response_type"
    oauth = "unsupported_response_type"
    says = "Only response_type=code is supported."


class AccessDenied(Refusal):
    """The user or the EHR said no during authorization (RFC 6749 §4.1.2.1)."""

    code = "access_denied"
    status = 403
    oauth = "access_denied"
    issue = "forbidden"
    says = "The authorization was denied."


class InvalidHandle(Refusal):
    """No handle, or one that is malformed, unknown, expired, revoked, or bound elsewhere (RFC 6750 §3.1)."""

    code = "invalid_token"
    status = 401
    oauth = "invalid_token"
    issue = "login"
    says = "The access token is missing, malformed, expired, revoked, or not valid for this FHIR server."

    needs_proof = False
    """It is bound to a key, so the challenge asks for DPoP (RFC 9449 §7.1)."""

    def __init__(self, detail: str, *, public: str | None = None, needs_proof: bool = False) -> None:
        super().__init__(detail, public=public)
        self.needs_proof = needs_proof


class InvalidDpopProof(Refusal):
    """The DPoP proof is missing, malformed, of another request, or was used before (RFC 9449 §5, §7.1)."""

    code = "invalid_dpop_proof"
    status = 401
    oauth = "invalid_dpop_proof"
    issue = "login"
    says = "The DPoP proof is missing or not valid for this request (RFC 9449)."


class UseDpopNonce(InvalidDpopProof):
    """The DPoP proof lacks the server's nonce, or carries an old one (RFC 9449 §8, §9)."""

    code = "use_dpop_nonce"
    oauth = "use_dpop_nonce"
    says = "The DPoP proof must carry the nonce of this answer's DPoP-Nonce header."
    nonce = ""
    """The one to use."""

    def __init__(self, detail: str, *, nonce: str) -> None:
        super().__init__(detail)
        self.nonce = nonce


class InsufficientScope(Refusal):
    """The handle is good but does not allow this interaction (RFC 6750 §3.1)."""

    code = "insufficient_scope"
    status = 403
    oauth = "insufficient_scope"
    issue = "forbidden"
    says = "The access token does not allow this interaction."


class AnswerWithheld(InsufficientScope):
    """The EHR answered with what the handle may not have, and nothing of it went out (PX-14, SC-05)."""

    code = "answer_withheld"
    issue = "suppressed"
    says = "The access token does not cover what was found."


class UninterpretableInteraction(Refusal):
    """The request is not a FHIR interaction that can be checked, so it is denied."""

    code = "uninterpretable_interaction"
    status = 403
    issue = "not-supported"
    says = "This request cannot be checked against scopes, so it is refused."


class NotFound(Refusal):
    """No EHR, registration, grant or handle of that name."""

    code = "not_found"
    status = 404
    issue = "not-found"
    says = "There is nothing of that name here."


class NotAcceptable(Refusal):
    """The app asks for a format whose links the broker cannot rewrite."""

    code = "not_acceptable"
    status = 406
    issue = "not-supported"
    says = "Only FHIR JSON is answered here. Ask for application/fhir+json."


class HttpVersionNotSupported(Refusal):
    """HTTP/1.0 below `/fhir`: it has no way to say that a streamed answer is whole (RFC 9112 §6.1)."""

    code = "http_version_not_supported"
    status = 505
    issue = "not-supported"
    says = "FHIR requests need HTTP/1.1. A proxy in front may have to be told to speak it."


class TooManyRequests(Refusal):
    """The app sends, or the EHR is asked, more than it may be at the moment (RFC 6585 §4)."""

    code = "too_many_requests"
    status = 429
    oauth = "temporarily_unavailable"
    issue = "throttled"
    says = "Too many requests. Try again after the seconds in Retry-After."
    retry_after = 0.0
    """Seconds until one more is allowed."""

    def __init__(self, detail: str, *, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class TooLarge(Refusal):
    """A body or header is over its limit."""

    code = "too_large"
    status = 413
    issue = "too-long"
    says = "The request is larger than the broker accepts."


class TooManyExports(Refusal):
    """There are as many bulk exports, or as many in line, as the broker keeps for one registration at an EHR."""

    code = "too_many_exports"
    status = 429
    oauth = "temporarily_unavailable"
    issue = "throttled"
    says = "Too many exports wait already. Fetch or cancel one, or ask again later."
    retry_after = 120.0
    """Seconds."""
