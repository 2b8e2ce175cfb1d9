"""What binds a need to the patient, seen from within: what no request of today can be, and what a permit says of it."""

import pytest

from broker.errors import InsufficientScope
from broker.interactions import Interaction, Need, parse_interaction
from broker.policy import allowed_to, decide
from broker.scopes import Scopes
from tests.test_policy import ALL, ME, REGISTRATION, app, ask, decided, grant, handle, known
from tests.test_policy_narrowed import batch

BACKEND = REGISTRATION.model_copy(update={"flow": "backend"})


def made(kind: str, path: str, *needs: Need, parameters: tuple[tuple[str, str], ...] = ()) -> Interaction:
    return Interaction(kind=kind, method="GET", path=path, query="", needs=needs, parameters=parameters)


def is_bound(interaction: Interaction) -> bool:
    """Whether it is allowed as it is, with nothing added and nothing to be checked."""
    try:
        permit = decide(handle("patient/*.rs"), grant(ALL), known(app(ALL)), interaction)
    except InsufficientScope:
        return False
    return permit.rule == "patient-scope bound"


@pytest.mark.parametrize(
    ("interaction", "bound"),
    [
        (made("operation", f"Patient/{ME}/$x", Need("Encounter", "r")), False),
        (made("operation", f"Patient/{ME}/$x", Need("Observation", "r", bound_to=ME)), True),
        (made("operation", f"Patient/{ME}/$x", Need("Observation", "r", bound_to="pat-2")), False),
        (made("operation", "List/$find", Need("List", "r", (("patient", ME),))), True),
        (made("operation", "List/$find", Need("List", "r", (("name", ME),))), False),
        (made("operation", "Location/$find", Need("Location", "r", (("patient", ME),))), False),
        (made("read", f"Patient/{ME}", Need("Patient", "r")), True),
        (made("read", f"Patient/{ME}", Need("Observation", "r")), False),
        (made("vread", f"Patient/{ME}/_history/1", Need("Observation", "r")), False),
        (made("search-compartment", f"Patient/{ME}/Encounter", Need("Encounter", "s")), True),
        (made("search-compartment", f"Patient/{ME}0/Encounter", Need("Encounter", "s")), False),
        (made("search-compartment", f"Patient/{ME}/Observation", Need("Observation", "s")), False),
        (made("search-compartment", f"Patient/{ME}/Observation", Need("Observation", "s", (("patient", ME),))), True),
        (made("search-type", "Observation", Need("Observation", "s", (("patient", ME),))), True),
        (made("search-type", "Observation", Need("Observation", "s", (("code", ME),))), False),
    ],
)
def test_a_need_is_bound_by_its_own_path_or_parameters_alone(interaction: Interaction, *, bound: bool) -> None:
    """PX-14."""
    assert is_bound(interaction) is bound


@pytest.mark.parametrize("name", ["_include", "_revinclude", "_has", "_include:iterate", "_has:A:b:c", "a.b"])
def test_a_compartment_with_what_leads_out_of_it_binds_nothing(name: str) -> None:
    """PX-14."""
    need = Need("Encounter", "s")
    path = f"Patient/{ME}/Encounter"
    assert not is_bound(made("search-compartment", path, need, parameters=((name, "x"),)))
    assert is_bound(made("search-compartment", path, need, parameters=(("code", "x"),)))


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        (f"Patient/{ME}/Encounter", "patient-scope bound"),
        (f"Patient/{ME}/Observation", "patient-scope bound added"),
        (f"Patient/{ME}/Observation?patient={ME}", "patient-scope bound"),
        (f"Patient/{ME}/AllergyIntolerance", "patient-scope bound added"),
        (f"Patient/{ME}/Communication", "patient-scope checked"),
        (f"Patient/{ME}/Appointment", "patient-scope checked"),
        (f"Patient/{ME}/Provenance", "patient-scope checked"),
    ],
)
def test_a_compartment_that_holds_what_is_about_others_too_does_not_bind_by_its_path(url: str, rule: str) -> None:
    """PX-14: another patient's Observation that this one took down is in this one's compartment."""
    assert decided("GET", url, held="patient/*.rs", granted=ALL).rule == rule


@pytest.mark.parametrize(("about", "released"), [(ME, True), ("pat-2", False)])
def test_what_a_compartment_holds_of_another_patient_is_withheld(about: str, *, released: bool) -> None:
    """PX-14."""
    permit = decided("GET", f"Patient/{ME}/Communication", held="patient/*.rs", granted=ALL)
    subject, sender = {"reference": f"Patient/{about}"}, {"reference": f"Patient/{ME}"}

    assert permit.checks is not None
    assert permit.checks.allow({"resourceType": "Communication", "subject": subject, "sender": sender}) is released


@pytest.mark.parametrize(
    "url",
    [
        f"Provenance?patient={ME}",
        f"Patient/{ME}/Communication?sender.name=x",
        f"Patient/{ME}/Communication?_revinclude=Communication:part-of",
        f"Patient/{ME}/Contract",
        f"Patient/{ME}/Task",
        f"Practitioner/{ME}/Communication",
    ],
)
def test_what_would_look_at_what_is_about_others_is_refused(url: str) -> None:
    """PX-14: a Provenance may be about several patients, and an answer without matches would tell of all of them."""
    with pytest.raises(InsufficientScope, match="reaches beyond"):
        decided("GET", url, held="patient/*.rs", granted=ALL)


def test_in_a_batch_a_compartment_of_others_has_to_say_whom() -> None:
    """PX-14: nothing can be added there."""
    held, allowed = handle("patient/*.rs"), known(app(ALL))
    assert decide(held, grant(ALL), allowed, batch(f"Patient/{ME}/Observation?patient={ME}")).checks is None
    with pytest.raises(InsufficientScope, match="every entry is a read"):
        decide(held, grant(ALL), allowed, batch(f"Patient/{ME}/Observation"))


@pytest.mark.parametrize(
    ("url", "granted", "bound"),
    [
        (f"Observation?patient={ME}", ALL, [ME]),
        (f"Observation?patient={ME}", "patient/*.cruds", [None]),
        (f"?_type=Observation,Condition&patient={ME}", "patient/*.cruds", [None, None]),
        (f"Patient/{ME}/Observation", "patient/*.cruds user/Observation.s", [ME]),
    ],
)
def test_a_permit_says_which_needs_the_request_binds(url: str, granted: str, bound: list[str | None]) -> None:
    """PX-07."""
    permit = decided("GET", url, held="patient/*.rs", granted=granted, policy=ALL)
    assert [need.bound_to for need in permit.needs] == bound


def test_one_need_is_bound_and_another_need_not_be() -> None:
    """The EHR binds the second."""
    url = f"DiagnosticReport?patient={ME}&_include=DiagnosticReport:result:Observation"
    permit = decided("GET", url, held="patient/*.rs", granted="patient/*.rs user/DiagnosticReport.rs", policy=ALL)
    assert [(need.type, need.bound_to) for need in permit.needs] == [("DiagnosticReport", ME), ("Observation", None)]


@pytest.mark.parametrize(
    ("url", "granted"),
    [
        ("Observation", "patient/*.rs user/Observation.cud"),
        ("Observation", "patient/*.rs user/Encounter.rs"),
        ("Observation/o1", "patient/*.rs user/Observation.s"),
        ("Observation", "patient/*.rs user/Observation.r system/Patient.s"),
    ],
)
def test_a_token_that_reaches_further_by_another_letter_or_type_does_not_reach_further_here(
    url: str, granted: str
) -> None:
    """PX-14."""
    permit = decided("GET", url, held="patient/*.rs", granted=granted, policy=f"{ALL} system/*.cruds")
    assert permit.rule == "patient-scope"


@pytest.mark.parametrize("granted", ["patient/*.rs user/Encounter.s", "patient/*.rs system/Encounter.s?class=x"])
def test_a_token_that_reaches_further_in_one_type_reaches_further_in_all(granted: str) -> None:
    """PX-14."""
    with pytest.raises(InsufficientScope, match="reaches beyond"):
        decided("GET", "?_lastUpdated=gt2020", held="patient/*.rs", granted=granted, policy=ALL)


@pytest.mark.parametrize("type_", ["Observation", "Encounter"])
def test_a_token_that_reaches_further_in_one_of_the_types_that_are_searched_is_refused(type_: str) -> None:
    """PX-14: whichever of them it is, an empty answer would tell of other patients."""
    with pytest.raises(InsufficientScope, match="reaches beyond"):
        decided(
            "GET",
            "?_type=Observation,Encounter",
            held="patient/*.rs",
            granted=f"patient/*.rs user/{type_}.s",
            policy=ALL,
        )


def test_what_is_added_to_a_search_with_parameters_binds_it_apart_from_what_refers_to_it() -> None:
    """PX-14: without parameters nobody could tell the two needs of one type apart."""
    url = "Observation?code=1&_revinclude=Observation:has-member"
    permit = decided("GET", url, held="patient/*.rs", granted=ALL)
    assert permit.rule == "patient-scope bound added checked"
    assert [need.bound_to for need in permit.needs][:2] == [ME, None]


def test_the_answer_to_an_operation_is_looked_at_whether_it_is_got_or_posted() -> None:
    """PX-14."""
    url, headers = b"Encounter/e1/$everything", [(b"content-type", b"application/fhir+json")]
    posted = parse_interaction("POST", url, b"", headers, b'{"resourceType":"Parameters"}')

    for interaction in (ask("GET", url.decode()), posted):
        permit = decide(handle("patient/*.rs"), grant(ALL), known(app(ALL)), interaction)
        assert permit.rule == "patient-scope checked"


def test_a_page_of_another_patients_search_is_refused() -> None:
    """CX-11: also where the answer would show whose it is."""
    need = Need("Observation", "s", bound_to="pat-2")
    with pytest.raises(InsufficientScope, match="another patient's search"):
        decide(handle("patient/*.rs"), grant(ALL), known(app(ALL)), made("search-page", "Observation", need))


def test_a_batch_counts_on_a_search_parameter_where_one_entry_does() -> None:
    """SC-05."""
    held = "user/Observation.s?category=x user/Patient.r"
    permit = decide(
        handle(held), grant(held), known(app(held)), batch(f"Patient/{ME}", "Observation?category=x", f"Patient/{ME}")
    )
    assert permit.relies_on_search


def test_a_grant_holds_for_an_app_what_the_policy_has_of_it() -> None:
    """TR-05."""
    assert str(allowed_to(["app"], grant("user/*.rs"), known(app("user/Patient.cruds")))) == "user/Patient.rs"
    held = Scopes.parse("user/Patient.r")
    assert str(allowed_to(["app"], grant("user/*.rs"), known(app("user/*.rs")), held=held)) == "user/Patient.r"


def test_an_app_that_has_no_access_of_the_grants_flow_may_do_nothing() -> None:
    with pytest.raises(InsufficientScope, match="no launch access"):
        decide(handle("user/*.rs"), grant("user/*.rs"), known(app("user/*.rs", BACKEND)), ask("GET", "Observation"))
