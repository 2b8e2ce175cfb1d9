"""It is not the caller's request: the grant has ended, the EHR failed, or a part of the broker is down."""

from broker.errors.error import BrokerError


class ReauthorizationRequired(BrokerError):
    """The grant is at its end: revoked, refused by the EHR, or its last refresh has an unknown outcome."""

    code = "reauthorization_required"
    status = 401
    oauth = "invalid_grant"
    issue = "login"
    says = "The EHR's authorization has ended. Launch or log in again."


class RelaunchRequired(ReauthorizationRequired):
    """The grant was for as long as the person's session at the EHR, and that has ended (`online_access`, RF-10)."""

    code = "relaunch_required"
    says = "The session at the EHR has ended, and with it this authorization. Launch again."


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
    retry_after: float | None = None
    """Seconds that the EHR asked to wait, 0 where it did not say; None when it answered nothing."""
    ours = False
    """Whether it is the broker's own fault, and so says nothing about the EHR."""

    def __init__(
        self, detail: str, *, public: str | None = None, retry_after: float | None = None, ours: bool = False
    ) -> None:
        super().__init__(detail, public=public)
        self.retry_after = retry_after
        self.ours = ours


class EhrHeldBack(EhrUnreachable):
    """The broker itself did not send: the EHR is to be left alone now, or is asked as much as it may be."""

    code = "ehr_held_back"
    says = "The EHR is not asked at the moment. Try again later."

    def __init__(self, detail: str, *, retry_after: float, callers_may: bool = False) -> None:
        super().__init__(detail, retry_after=retry_after, ours=True)
        self.callers_may = callers_may
        """Only work that nobody waits for is held back: a caller may ask."""


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
    """A proper OAuth error from the EHR (RFC 6749 §5.2); `error` is its code."""

    code = "ehr_refused"

    def __init__(self, detail: str, *, error: str, public: str | None = None) -> None:
        super().__init__(detail, public=public)
        self.error = error


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


class StoreUnacknowledged(StoreUnavailable):
    """It is written, and who else must have it (`BROKER_REDIS_DURABILITY`) has not said so in time."""


class AuditUnavailable(Unavailable):
    """The audit record could not be written, so the act it records does not happen."""

    code = "audit_unavailable"


class KeyUnavailable(Unavailable):
    """A key that a record was sealed under cannot be had: it is not on the keyring, or the KMS does not answer."""

    code = "key_unavailable"


class KeyRefused(KeyUnavailable):
    """The KMS answered, and said no: the key is disabled or destroyed, or we may not use it."""

    code = "key_refused"


class SealBroken(Unavailable):
    """A sealed record does not open in its own context: moved, swapped, replayed or damaged."""

    code = "seal_broken"


class BackupUnreadable(BrokerError):
    """A backup is damaged, was cut, or is of another broker: nothing of it is put back."""

    code = "backup_unreadable"
    says = "The backup cannot be read."
