"""Every way this program says no.

    BrokerError
    ├── ConfigurationError          what the operator wrote cannot be run
    ├── Refusal                     the caller must change something; nothing was done
    │   ├── InvalidRequest · InvalidClient · InvalidGrant · UnauthorizedClient · InvalidScope · InvalidTarget
    │   ├── UnsupportedGrantType · UnsupportedResponseType · AccessDenied          (RFC 6749, RFC 8707)
    │   ├── InvalidHandle · InsufficientScope · UninterpretableInteraction         (RFC 6750 §3.1, on /fhir)
    │   └── NotFound · NotAcceptable · TooLarge
    ├── ReauthorizationRequired     the grant cannot be used until the EHR authorizes again
    ├── EhrError                    the EHR failed us
    │   ├── EhrUnreachable          definitely not processed: nothing was sent, or it said "later"
    │   ├── EhrAnswerLost           sent, but no answer came: it may have been processed (RF-05)
    │   │   └── EhrAnswerUnreadable     it said so, but the answer cannot be used
    │   ├── EhrRefused              a proper OAuth error answer
    │   └── EhrMisbehaved           an answer that is not what the specification allows (DS-14, OA-04)
    └── Unavailable                 a part of the broker itself is down; nothing fails open
        ├── StoreUnavailable · AuditUnavailable · KeyUnavailable
        └── SealBroken              a sealed record was moved, swapped, replayed or damaged

An error has two texts. `public` may be shown to whoever asked. `detail` is for the audit record and the log; it names
the cause, and it never holds a secret or PHI, because every raiser writes it from identifiers and codes alone.
"""

from typing import ClassVar


class BrokerError(Exception):
    """The root. `code` is stable and documented; `oauth` and `issue` are the same fact in the two wire dialects."""

    code: ClassVar[str] = "server_error"
    status: ClassVar[int] = 500
    oauth: ClassVar[str] = "server_error"
    issue: ClassVar[str] = "exception"
    says: ClassVar[str] = "The broker could not complete the request."

    def __init__(self, detail: str, *, public: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.public = public or self.says


class ConfigurationError(BrokerError):
    """One or more faults in `broker.toml` or the environment, each a line that names the fix."""

    code = "configuration_error"

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


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


class InsufficientScope(Refusal):
    """The handle is good but does not allow this interaction (RFC 6750 §3.1)."""

    code = "insufficient_scope"
    status = 403
    oauth = "insufficient_scope"
    issue = "forbidden"
    says = "The access token does not allow this interaction."


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


class TooLarge(Refusal):
    """A body or header is over its limit."""

    code = "too_large"
    status = 413
    issue = "too-long"
    says = "The request is larger than the broker accepts."


class ReauthorizationRequired(BrokerError):
    """The grant is at its end: revoked, refused by the EHR, or its last refresh has an unknown outcome."""

    code = "reauthorization_required"
    status = 401
    oauth = "invalid_grant"
    issue = "login"
    says = "The EHR's authorization has ended. Launch or log in again."


class EhrError(BrokerError):
    """The EHR did not do its part."""

    code = "ehr_error"
    status = 502
    oauth = "server_error"
    issue = "exception"
    says = "The EHR could not complete the request."


class EhrUnreachable(EhrError):
    """Definitely not processed: no connection, or the EHR said "later" (429, 5xx). Safe to try again."""

    code = "ehr_unreachable"
    status = 503
    oauth = "temporarily_unavailable"
    issue = "transient"
    says = "The EHR cannot be reached at the moment. Try again later."


class EhrAnswerLost(EhrError):
    """Sent, but no complete answer came: the EHR may have processed it. Never blindly sent again (RF-05)."""

    code = "ehr_answer_lost"
    status = 504
    oauth = "temporarily_unavailable"
    issue = "timeout"
    says = "The EHR did not answer in time."


class EhrAnswerUnreadable(EhrAnswerLost):
    """It said that it was processed (2xx), but what it answered cannot be used: as good as lost (RF-05)."""

    code = "ehr_answer_unreadable"
    status = 502
    oauth = "server_error"
    issue = "exception"
    says = "The EHR's answer cannot be used."


class EhrRefused(EhrError):
    """A proper OAuth error from the EHR (RFC 6749 §5.2); `error` is its code, `error_uri` as text for the operator."""

    code = "ehr_refused"

    def __init__(self, detail: str, *, error: str, error_uri: str | None = None, public: str | None = None) -> None:
        super().__init__(detail, public=public)
        self.error = error
        self.error_uri = error_uri


class EhrMisbehaved(EhrError):
    """HTML where JSON belongs, a required member missing, a wrong signature, an oversized answer."""

    code = "ehr_misbehaved"


class Unavailable(BrokerError):
    """A part of the broker is down. The answer is a refusal: nothing fails open."""

    code = "unavailable"
    status = 503
    oauth = "temporarily_unavailable"
    issue = "transient"
    says = "The broker is temporarily unable to answer. Nothing was lost; try again."


class StoreUnavailable(Unavailable):
    """Redis did not answer."""

    code = "store_unavailable"


class AuditUnavailable(Unavailable):
    """The audit record could not be written, so the act it records does not happen."""

    code = "audit_unavailable"


class KeyUnavailable(Unavailable):
    """The key-encryption key that a record names is not on the keyring."""

    code = "key_unavailable"


class SealBroken(Unavailable):
    """A sealed record does not open in its own context: moved, swapped, replayed or damaged."""

    code = "seal_broken"
