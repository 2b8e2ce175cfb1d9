"""What a limited handle may do, as a table: the limit alone makes the difference, and the refusal names it (HB-02)."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from broker.apps import Allowance, App
from broker.errors import BrokerError, InsufficientScope, InvalidHandle
from broker.handles import Ancestor, Handle
from broker.interactions import Interaction, parse_interaction
from broker.limits import Arrival, Limits, Network, canonical, plain_address
from broker.policy import FindArrival, Permit, decide, effective_limits
from broker.scopes import Scopes
from broker.settings import AppSettings
from tests.test_policy import ME, REGISTRATION, ask, grant, handle, known
from tests.test_policy_narrowed import batch, form

SCOPES = "patient/*.cruds"
UNLIMITED = App(
    AppSettings(id="app", authentication="none"), (Allowance(registration=REGISTRATION, scopes=Scopes.parse(SCOPES)),)
)


def limited(limits: Limits | None) -> Handle:
    return replace(handle(SCOPES), limits=limits)


def decided(interaction: Interaction, limits: Limits | None, find_arrival: FindArrival | None = None) -> Permit:
    return decide(limited(limits), grant(SCOPES), known(UNLIMITED), interaction, find_arrival)


def refusal(interaction: Interaction, limits: Limits, arrival: Arrival | None = None) -> BrokerError:
    """Return the refusal of what is allowed without the limits."""
    assert decided(interaction, None).interaction == interaction
    with pytest.raises((InsufficientScope, InvalidHandle)) as refused:
        decided(interaction, limits, None if arrival is None else lambda: arrival)
    return refused.value


def types(*names: str) -> Limits:
    return Limits(types=frozenset(names))


def interactions(*names: str) -> Limits:
    return Limits(interactions=frozenset(names))


READ_ONLY = Limits(read_only=True)
OBSERVATIONS = types("Observation")
ALLOWED: list[tuple[str, Limits, Interaction]] = [
    ("read of the type", OBSERVATIONS, ask("GET", "Observation/o1")),
    ("vread of the type", OBSERVATIONS, ask("GET", "Observation/o1/_history/2")),
    ("search of the type", OBSERVATIONS, ask("GET", f"Observation?patient={ME}")),
    ("compartment search of the type", OBSERVATIONS, ask("GET", f"Patient/{ME}/Observation")),
    ("search of types", types("Observation", "Condition"), ask("GET", "?_type=Observation,Condition")),
    ("create of the type", OBSERVATIONS, ask("POST", "Observation")),
    ("include of both types", types("Observation", "Patient"), ask("GET", "Observation?_include=Observation:patient")),
    ("batch of the type", OBSERVATIONS, batch("Observation/o1", "Observation?code=1")),
    (
        "everything, by types",
        types("Patient", "Observation"),
        ask("GET", f"Patient/{ME}/$everything?_type=Observation"),
    ),
    ("capabilities under types", OBSERVATIONS, ask("GET", "metadata")),
    ("read", interactions("read"), ask("GET", "Observation/o1")),
    ("read, by HEAD", interactions("read"), ask("HEAD", "Observation/o1")),
    ("search", interactions("search-type"), ask("GET", "Observation?code=1")),
    ("search by form", interactions("search-type"), form("Observation/_search", "code=1")),
    ("operation", interactions("$everything"), ask("GET", f"Patient/{ME}/$everything")),
    ("batch of reads", interactions("read"), batch("Observation/o1", "Condition/c1")),
    ("capabilities", interactions("capabilities"), ask("GET", "metadata")),
    ("read, read only", READ_ONLY, ask("GET", "Observation/o1")),
    ("search by form, read only", READ_ONLY, form("Observation/_search", "code=1")),
    ("history, read only", READ_ONLY, ask("GET", "Observation/o1/_history")),
    ("operation, read only", READ_ONLY, ask("GET", f"Patient/{ME}/$everything")),
    ("batch of reads, read only", READ_ONLY, batch("Observation/o1", f"Patient/{ME}")),
]
REFUSED: list[tuple[str, str, Limits, Interaction]] = [
    ("read of another type", "types", OBSERVATIONS, ask("GET", "Condition/c1")),
    ("read of the patient", "types", OBSERVATIONS, ask("GET", f"Patient/{ME}")),
    ("search of every type", "types", OBSERVATIONS, ask("GET", "?_lastUpdated=gt2020")),
    ("search of one type too many", "types", OBSERVATIONS, ask("GET", "?_type=Observation,Condition")),
    ("compartment of every type", "types", OBSERVATIONS, ask("GET", f"Patient/{ME}/*")),
    ("history of every type", "types", OBSERVATIONS, ask("GET", "_history")),
    ("include of another type", "types", OBSERVATIONS, ask("GET", "Observation?_include=Observation:patient")),
    ("include of any type", "types", OBSERVATIONS, ask("GET", "Observation?_include=Observation:subject")),
    ("include of everything", "types", OBSERVATIONS, ask("GET", "Observation?_include=*")),
    ("iterated include", "types", OBSERVATIONS, ask("GET", "Observation?_include:iterate=Patient:link:Patient")),
    ("revinclude of another type", "types", OBSERVATIONS, ask("GET", "Observation?_revinclude=Provenance:target")),
    ("chain to another type", "types", OBSERVATIONS, ask("GET", "Observation?subject:Patient.name=x")),
    ("has of another type", "types", OBSERVATIONS, ask("GET", "Observation?_has:Provenance:target:agent=x")),
    ("search by form", "types", OBSERVATIONS, form("Condition/_search", "code=1")),
    ("everything", "types", OBSERVATIONS, ask("GET", f"Patient/{ME}/$everything")),
    ("everything, by types", "types", OBSERVATIONS, ask("GET", f"Patient/{ME}/$everything?_type=Observation")),
    ("write of another type", "types", OBSERVATIONS, ask("PUT", "Condition/c1")),
    ("one entry", "types", OBSERVATIONS, batch("Observation/o1", "Condition/c1")),
    ("page of anything", "types", OBSERVATIONS, ask("GET", "?_getpages=abc")),
    ("vread", "interactions", interactions("read"), ask("GET", "Observation/o1/_history/2")),
    ("search", "interactions", interactions("read"), ask("GET", "Observation?_id=o1")),
    ("search by form", "interactions", interactions("read"), form("Observation/_search", "_id=o1")),
    ("search of the system", "interactions", interactions("search-type"), ask("GET", "?_type=Observation")),
    ("search of a compartment", "interactions", interactions("search-type"), ask("GET", f"Patient/{ME}/Observation")),
    ("page of anything", "interactions", interactions("search-type"), ask("GET", "?_getpages=abc")),
    ("another operation", "interactions", interactions("$lastn"), ask("GET", f"Patient/{ME}/$everything")),
    ("capabilities", "interactions", interactions("read"), ask("GET", "metadata")),
    ("one entry", "interactions", interactions("read"), batch("Observation/o1", "Observation?code=1")),
    ("conditional delete", "interactions", interactions("delete"), ask("DELETE", "Observation?code=1")),
    ("create", "read_only", READ_ONLY, ask("POST", "Observation")),
    ("update", "read_only", READ_ONLY, ask("PUT", "Observation/o1")),
    ("patch", "read_only", READ_ONLY, ask("PATCH", "Observation/o1")),
    ("delete", "read_only", READ_ONLY, ask("DELETE", "Observation/o1")),
    ("conditional update", "read_only", READ_ONLY, ask("PUT", "Observation?code=1")),
    ("conditional delete", "read_only", READ_ONLY, ask("DELETE", "Observation?code=1")),
]


@pytest.mark.parametrize(("limits", "interaction"), [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_what_is_within_the_limits_goes_on_as_it_is(limits: Limits, interaction: Interaction) -> None:
    """HB-02, SC-09."""
    assert decided(interaction, limits).interaction == interaction


@pytest.mark.parametrize(
    ("limit", "limits", "interaction"), [row[1:] for row in REFUSED], ids=[f"{row[1]}: {row[0]}" for row in REFUSED]
)
def test_what_is_beyond_a_limit_is_refused_by_its_name(limit: str, limits: Limits, interaction: Interaction) -> None:
    """HB-02, SC-09."""
    refused = refusal(interaction, limits)

    assert (refused.code, refused.status) == ("insufficient_scope", 403)
    assert refused.detail.startswith(f"limit {limit}: ")
    assert refused.public.endswith(f"its limit is {limit}.")


@pytest.mark.parametrize(
    ("limits", "interaction", "detail"),
    [
        (OBSERVATIONS, ask("GET", "Condition/c1"), "limit types: Condition.r is of none of them"),
        (interactions("read"), ask("GET", "Observation"), "limit interactions: search-type is not among them"),
        (READ_ONLY, ask("DELETE", "Observation/o1"), "limit read_only: Observation.d is no reading"),
        (
            Limits(max_count=5),
            batch("Observation"),
            "limit max_count: a search in a Bundle must itself ask for a _count of at most 5",
        ),
    ],
)
def test_the_audit_record_says_what_was_beyond_which_limit(
    limits: Limits, interaction: Interaction, detail: str
) -> None:
    """HB-09: by kinds and types, never by ids or values."""
    assert refusal(interaction, limits).detail == detail


def test_limits_give_nothing_that_scopes_do_not() -> None:
    """HB-02: a limit names what is left of the scope, not what is added to it."""
    for limits in (types("Observation"), interactions("read"), Limits()):
        with pytest.raises(InsufficientScope, match="no scope covers"):
            decide(limited(limits), grant("patient/Condition.rs"), known(UNLIMITED), ask("GET", "Observation/o1"))


# When, and from where


def net(*texts: str) -> Limits:
    listed: list[Network] = [ip_network(text) for text in texts]
    return Limits(network=canonical(listed))


def from_(text: str, at: float = 1000.0) -> Arrival:
    return Arrival(at=at, address=plain_address(text))


READ = ask("GET", "Observation/o1")


@pytest.mark.parametrize("at", [1000.0, 1000.5, 5000.0])
def test_from_its_beginning_on_a_handle_works(at: float) -> None:
    assert decided(READ, Limits(not_before=1000), lambda: Arrival(at=at)).interaction == READ


@pytest.mark.parametrize("arrival", [Arrival(at=999.999), None], ids=["early", "unknown"])
def test_before_its_beginning_a_handle_is_not_valid_yet(arrival: Arrival | None) -> None:
    refused = refusal(READ, Limits(not_before=1000), arrival)

    assert (refused.code, refused.status, refused.public) == (
        "invalid_token",
        401,
        "The access token is not valid yet.",
    )
    assert refused.detail == "limit not_before: it is too early"


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("203.0.113.0/24", "203.0.113.255"),
        ("203.0.113.0/24", "::ffff:203.0.113.1"),
        ("203.0.113.7/32", "203.0.113.7"),
        ("2001:db8::/32", "2001:db8:ffff::1"),
        ("0.0.0.0/0", "::ffff:8.8.8.8"),
        ("::/0", "2001:db8::1"),
    ],
)
def test_from_its_network_a_handle_works(network: str, address: str) -> None:
    assert decided(READ, net("192.0.2.0/24", network), lambda: from_(address)).interaction == READ


@pytest.mark.parametrize(
    ("network", "address", "why"),
    [
        ("203.0.113.0/24", "203.0.114.0", "the caller is elsewhere"),
        ("203.0.113.0/24", "2001:db8::cb00:7101", "the caller is elsewhere"),
        ("203.0.113.0/24", "::203.0.113.1", "the caller is elsewhere"),
        ("203.0.113.0/24", "64:ff9b::203.0.113.1", "the caller is elsewhere"),
        ("::/0", "203.0.113.1", "the caller is elsewhere"),
        ("::/0", "::ffff:203.0.113.1", "the caller is elsewhere"),
        ("0.0.0.0/0", "2001:db8::1", "the caller is elsewhere"),
        ("0.0.0.0/0", "", "the caller's address is not known"),
        ("0.0.0.0/0", "unknown", "the caller's address is not known"),
    ],
)
def test_from_elsewhere_or_nowhere_a_handle_is_not_valid(network: str, address: str, why: str) -> None:
    refused = refusal(READ, net(network), from_(address))

    assert (refused.code, refused.status, refused.detail) == ("invalid_token", 401, f"limit network: {why}")
    assert refused.public == "The access token is not valid for requests from this address."


def test_an_arrival_is_written_nowhere_with_its_address() -> None:
    """Blueprint §5.10."""
    assert repr(from_("203.0.113.7")) == "Arrival(at=1000.0)"


def test_who_does_not_say_where_a_request_came_from_is_refused() -> None:
    assert refusal(READ, net("0.0.0.0/0", "::/0")).detail == "limit network: the caller's address is not known"


@pytest.mark.parametrize("limits", [Limits(network=net("::/0").network), OBSERVATIONS], ids=["network", "types"])
def test_the_certificate_of_a_request_is_read_only_where_a_handle_is_bound_to_one(limits: Limits) -> None:
    def unread() -> str:
        raise AssertionError

    arrival = Arrival(at=1000.0, address=plain_address("2001:db8::1"), find_x5t=unread)

    assert decided(READ, limits, lambda: arrival).interaction == READ


@pytest.mark.parametrize(
    ("arrival", "why"),
    [
        (None, "none was shown"),
        (Arrival(at=1000.0), "none was shown"),
        (Arrival(at=1000.0, find_x5t=lambda: "other"), "another one was shown"),
    ],
)
def test_a_bound_handle_is_refused_without_its_certificate(arrival: Arrival | None, why: str) -> None:
    """RFC 8705 §3 (HB-03)."""
    bound, policies = replace(limited(None), x5t="own"), known(UNLIMITED)

    with pytest.raises(InvalidHandle, match=f"is bound to a certificate, and {why}$"):
        decide(bound, grant(SCOPES), policies, READ, (lambda: arrival) if arrival else None)

    own = Arrival(at=1000.0, find_x5t=lambda: "own")
    assert decide(bound, grant(SCOPES), policies, READ, lambda: own).interaction == READ


def test_nobody_is_asked_where_a_request_came_from_for_a_handle_without_limits() -> None:
    def unasked() -> Arrival:
        raise AssertionError

    assert decided(READ, None, unasked).interaction == READ


# Policies


def app(id_: str, limits: Limits | None, exchange_from: tuple[str, ...] = ()) -> App:
    settings = AppSettings(id=id_, authentication="none", exchange_from=exchange_from)
    return App(settings, (Allowance(registration=REGISTRATION, scopes=Scopes.parse(SCOPES), limits=limits),))


def test_the_limits_of_every_policy_on_the_way_hold_beside_the_handle_s() -> None:
    """HB-05: of the app that was authorized, of the one that acts, and of the handle."""
    policies = known(app("first", Limits(max_count=50, read_only=True)), app("app", Limits(max_count=20), ("first",)))
    delegated = replace(limited(types("Observation")), ancestors=(Ancestor("a" * 64, "first", counted=False),))

    assert effective_limits(delegated, grant(SCOPES), policies) == Limits(
        types=frozenset({"Observation"}), max_count=20, read_only=True
    )
    permit = decide(delegated, grant(SCOPES), policies, ask("GET", "Observation?_count=30"))
    assert permit.interaction.query == "_count=20"
    with pytest.raises(InsufficientScope, match="limit read_only"):
        decide(delegated, grant(SCOPES), policies, ask("DELETE", "Observation/o1"))


def test_where_nobody_limits_there_are_no_limits() -> None:
    assert effective_limits(limited(None), grant(SCOPES), known(UNLIMITED)) is None


def test_the_body_of_an_allowed_bundle_is_what_was_decided_on() -> None:
    body = b'{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","url":"Observation/o1"}}]}'
    bundle = parse_interaction("POST", b"", b"", [(b"content-type", b"application/fhir+json")], body)

    assert decided(bundle, interactions("read")).interaction.body == body
