"""Every way this program says no.

    BrokerError
    ├── ConfigurationError          what the operator wrote cannot be run
    ├── Refusal                     the caller must change something; nothing was done
    │   ├── InvalidRequest · InvalidClient · InvalidGrant · UnauthorizedClient · InvalidScope · InvalidTarget
    │   ├── UnsupportedGrantType · UnsupportedResponseType · AccessDenied          (RFC 6749, RFC 8707)
    │   ├── InvalidAuthorizationDetails                                            (RFC 9396)
    │   ├── InvalidHandle · InsufficientScope · UninterpretableInteraction         (RFC 6750 §3.1, on /fhir)
    │   │   └── AnswerWithheld          here the EHR was asked, and its answer stays
    │   ├── InvalidDpopProof                                                       (RFC 9449)
    │   │   └── UseDpopNonce
    │   └── NotFound · NotAcceptable · HttpVersionNotSupported · TooLarge · TooManyExports · TooManyRequests
    ├── ReauthorizationRequired     the grant cannot be used until the EHR authorizes again
    │   └── RelaunchRequired            it was granted for a session at the EHR, which has ended
    ├── EhrError                    the EHR failed us
    │   ├── EhrUnreachable          definitely not processed: nothing was sent, or it said "later"
    │   │   └── EhrHeldBack             nothing was sent: the EHR is to be left alone now
    │   ├── EhrAnswerLost           sent, but no answer came: it may have been processed (RF-05)
    │   │   └── EhrAnswerUnreadable     it said so, but the answer cannot be used
    │   ├── EhrRefused              a proper OAuth error answer
    │   └── EhrMisbehaved           an answer that is not what the specification allows (DS-14, OA-04)
    ├── BackupUnreadable            a backup is damaged, or of another broker
    └── Unavailable                 a part of the broker itself is down; nothing fails open
        ├── StoreUnavailable · AuditUnavailable
        ├── KeyUnavailable          a key cannot be had now
        │   └── KeyRefused              nor later: disabled, destroyed, denied
        │   └── StoreUnacknowledged     written, and not yet where it must be
        └── SealBroken              a sealed record was moved, swapped, replayed or damaged

An error has two texts. `public` may be shown to whoever asked. `detail` is for the audit record and the log; it names
the cause, and it never holds a secret or PHI, because every raiser writes it from identifiers and codes alone.
"""

from broker.errors.error import BrokerError, ConfigurationError
from broker.errors.refusals import (
    AccessDenied,
    AnswerWithheld,
    HttpVersionNotSupported,
    InsufficientScope,
    InvalidAuthorizationDetails,
    InvalidClient,
    InvalidDpopProof,
    InvalidGrant,
    InvalidHandle,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    NotAcceptable,
    NotFound,
    Refusal,
    TooLarge,
    TooManyExports,
    TooManyRequests,
    UnauthorizedClient,
    UninterpretableInteraction,
    UnsupportedGrantType,
    UnsupportedResponseType,
    UseDpopNonce,
)
from broker.errors.trouble import (
    AuditUnavailable,
    BackupUnreadable,
    EhrAnswerLost,
    EhrAnswerUnreadable,
    EhrError,
    EhrHeldBack,
    EhrMisbehaved,
    EhrRefused,
    EhrUnreachable,
    KeyRefused,
    KeyUnavailable,
    ReauthorizationRequired,
    RelaunchRequired,
    SealBroken,
    StoreUnacknowledged,
    StoreUnavailable,
    Unavailable,
)

__all__ = [
    "AccessDenied",
    "AnswerWithheld",
    "AuditUnavailable",
    "BackupUnreadable",
    "BrokerError",
    "ConfigurationError",
    "EhrAnswerLost",
    "EhrAnswerUnreadable",
    "EhrError",
    "EhrHeldBack",
    "EhrMisbehaved",
    "EhrRefused",
    "EhrUnreachable",
    "HttpVersionNotSupported",
    "InsufficientScope",
    "InvalidAuthorizationDetails",
    "InvalidClient",
    "InvalidDpopProof",
    "InvalidGrant",
    "InvalidHandle",
    "InvalidRequest",
    "InvalidScope",
    "InvalidTarget",
    "KeyRefused",
    "KeyUnavailable",
    "NotAcceptable",
    "NotFound",
    "ReauthorizationRequired",
    "Refusal",
    "RelaunchRequired",
    "SealBroken",
    "StoreUnacknowledged",
    "StoreUnavailable",
    "TooLarge",
    "TooManyExports",
    "TooManyRequests",
    "UnauthorizedClient",
    "Unavailable",
    "UninterpretableInteraction",
    "UnsupportedGrantType",
    "UnsupportedResponseType",
    "UseDpopNonce",
]
