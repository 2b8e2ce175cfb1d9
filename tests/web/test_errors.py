"""What leaves the broker when something does not work."""

import pytest

from broker.errors import AuditUnavailable, BrokerError, EhrAnswerLost, EhrUnreachable, InvalidGrant, StoreUnavailable
from broker.web.errors import fhir_error, oauth_error


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (EhrUnreachable("", retry_after=60), "60"),
        (EhrUnreachable("", retry_after=0.2), "1"),
        (EhrUnreachable("", retry_after=1.5), "2"),
        (EhrUnreachable(""), "1"),
        (StoreUnavailable(""), "1"),
        (AuditUnavailable(""), "1"),
        (EhrAnswerLost(""), None),
        (InvalidGrant(""), None),
    ],
)
def test_what_may_be_tried_again_says_when_at_each_endpoint(error: BrokerError, seconds: str | None) -> None:
    """RF-05: an answer that was lost is not for trying again."""
    oauth, fhir = oauth_error(error, request_id="r"), fhir_error(error, request_id="r")

    assert (oauth.headers.get("retry-after"), fhir.headers.get("retry-after")) == (seconds, seconds)
