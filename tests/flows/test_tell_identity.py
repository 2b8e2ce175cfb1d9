"""Who an app is told the person is: as far as the EHR vouched, under a name of its own. Pure but for the signature."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.apps import Directory
from broker.credentials import KeyedHash
from broker.flows.tell_identity import TellIdentity, promised
from broker.grants import Grant, LaunchContext, Terms
from broker.keys.identity import IdentityKey
from broker.scopes import Scopes
from broker.settings import Settings

BASE = "https://broker.example/fhir/e"
PERSON = LaunchContext(fhir_user="Practitioner/1", issuer="https://ehr.example", subject="person")
texts = st.text(max_size=20)


@pytest.fixture
def tell_identity() -> TellIdentity:
    return _tell_identity()


def _tell_identity() -> TellIdentity:
    ehr = {"id": "e", "fhir_base": "https://ehr.example/r4"}
    registration = {"id": "r", "ehr": "e", "flow": "launch", "client_id": "c", "scopes": "openid patient/*.rs"}
    settings = Settings.model_validate(
        {"public_url": "https://broker.example", "ehr": [ehr], "registration": [registration]}
    )
    key = IdentityKey.__new__(IdentityKey)  # claims are not signed, so the key is never asked for
    return TellIdentity(Directory(settings), key, KeyedHash(bytes(32)), lambda: 1000.0)


def grant_of(context: LaunchContext) -> Grant:
    terms = Terms(
        ehr="e",
        fhir_base="https://ehr.example/r4",
        registration="r",
        flow="launch",
        app="a",
        scopes=Scopes(),
        context=context,
    )
    grant = Grant.__new__(Grant)
    object.__setattr__(grant, "terms", terms)
    return grant


def claims(tell_identity: TellIdentity, scope: str, context: LaunchContext = PERSON, app: str = "a") -> dict[str, Any]:
    return tell_identity.claims(app, grant_of(context), Scopes.parse(scope))


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ("openid fhirUser", {"iss", "sub", "fhirUser"}),
        ("openid profile", {"iss", "sub", "fhirUser"}),
        ("openid", {"iss", "sub"}),
        ("fhirUser", {"fhirUser"}),
        ("patient/*.rs", set()),
    ],
)
def test_each_scope_tells_its_own(tell_identity: TellIdentity, scope: str, told: set[str]) -> None:
    """SC-11, IN-02."""
    assert claims(tell_identity, scope).keys() == told


def test_fhir_user_is_absolute_and_here(tell_identity: TellIdentity) -> None:
    """ID-06."""
    assert claims(tell_identity, "fhirUser")["fhirUser"] == f"{BASE}/Practitioner/1"


@pytest.mark.parametrize(
    ("context", "kept"),
    [
        (PERSON, {"openid", "fhirUser", "profile"}),
        (LaunchContext(fhir_user="Patient/1"), {"fhirUser", "profile"}),
        (LaunchContext(issuer="https://ehr.example", subject="person"), {"openid"}),
        (LaunchContext(subject="person"), set()),
        (LaunchContext(issuer="https://ehr.example"), set()),
        (LaunchContext(), set()),
    ],
)
def test_what_the_ehr_did_not_vouch_for_is_not_promised(context: LaunchContext, kept: set[str]) -> None:
    """ID-09: the scope goes with the identity."""
    words = frozenset({"openid", "fhirUser", "profile", "launch/patient", "offline_access"})

    assert promised(words, context) == kept | {"launch/patient", "offline_access"}


@given(st.lists(st.tuples(texts, texts, texts), min_size=2, max_size=2, unique=True))
def test_the_subject_is_anothers_for_another_app_issuer_or_person(people: list[tuple[str, str, str]]) -> None:
    """OIDC Core §8.1, also where one name ends as the next begins."""
    tell_identity = _tell_identity()
    first, second = (
        claims(tell_identity, "openid", LaunchContext(issuer=issuer, subject=subject), app)["sub"]
        for app, issuer, subject in people
    )

    assert first != second


@given(texts, texts)
def test_the_subject_is_stable_and_tells_nothing_of_the_ehrs(issuer: str, subject: str) -> None:
    """OIDC Core §8: 64 hexadecimal digits, the same each time."""
    context = LaunchContext(issuer=issuer, subject=subject)
    first, again = (claims(_tell_identity(), "openid", context)["sub"] for _ in range(2))

    assert first == again
    assert len(first) == 64
    assert set(first) <= set("0123456789abcdef")
