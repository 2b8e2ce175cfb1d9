"""The decision for handles that token exchange made: one patient, several apps (RFC 8693, HB-05, OA-18)."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.apps import Allowance, App
from broker.errors import InsufficientScope, UninterpretableInteraction
from broker.handles import Ancestor, Handle
from broker.interactions import Interaction, parse_interaction
from broker.membership import Patient
from broker.policy import Permit, decide, effective_scopes, may_exchange
from broker.scopes import Scopes
from broker.settings import AppSettings
from tests.test_policy import ALL, ME, REGISTRATION, ask, grant, handle, known

EVERYBODY = "user/*.cruds system/*.cruds"


def narrowed(
    interaction: Interaction, *, held: str = EVERYBODY, granted: str | None = None, context: str | None = None
) -> Permit:
    """Decide for a handle that was narrowed to one patient."""
    policies = known(app("app", EVERYBODY + " patient/*.cruds"))
    return decide(handle(held, patient=ME), grant(granted or held, patient=context), policies, interaction)


def app(id_: str, scopes: str, exchange_from: tuple[str, ...] = (), operations: tuple[str, ...] = ()) -> App:
    settings = AppSettings(id=id_, authentication="none", exchange_from=exchange_from)
    allowance = Allowance(registration=REGISTRATION, scopes=Scopes.parse(scopes), operations=frozenset(operations))
    return App(settings, (allowance,))


def batch(*urls: str) -> Interaction:
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]
    body = json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries}).encode()
    return parse_interaction("POST", b"", b"", [(b"content-type", b"application/fhir+json")], body)


def form(path: str, pairs: str) -> Interaction:
    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    return parse_interaction("POST", path.encode(), b"", headers, pairs.encode())


MINE = [
    f"Patient/{ME}",
    f"Patient/{ME}/_history",
    f"Patient/{ME}/_history/3",
    f"Patient/{ME}/Observation",
    f"Patient/{ME}/Observation?code=1234-5&_count=10",
    f"Patient/{ME}/$everything",
    f"Patient?_id={ME}",
    f"Observation?patient={ME}",
    f"Observation?patient=Patient/{ME}&code=1234-5",
    f"Condition?subject=Patient/{ME}",
    "metadata",
]
ADDED_TO = [
    "Patient?name=Shaw",
    f"Patient?identifier={ME}",
    "Patient",
    "Observation",
    f"Observation?patient:not={ME}",
    f"Observation?patient:missing={ME}",
    f"Observation?subject:Patient={ME}",
    f"Observation?performer=Patient/{ME}",
    "Practitioner/pr1/Observation",
    f"AllergyIntolerance?subject=Patient/{ME}",
]
"""Searches that are not about this patient until the broker says so."""
SHOWN = [
    "Observation/o1",
    "Observation/o1/_history",
    f"Observation?patient={ME}&_include=Observation:subject",
    f"Observation?patient={ME}&_include=Observation:subject:Patient",
    f"Observation?patient={ME}&_include=Observation:performer:Practitioner",
    f"Observation?patient={ME}&_include=*",
    f"Observation?patient={ME}&_include:iterate=Patient:link:Patient",
    f"Observation?patient={ME}&_revinclude=Provenance:target",
    f"Patient?_id={ME}&_revinclude=Observation:subject",
    f"Patient/{ME}/Organization",
    f"Patient/{ME}/Medication",
    f"Observation/$lastn?patient={ME}",
    "Encounter/e1/$everything",
    f"Encounter/e1/Observation?patient={ME}&_include=Observation:encounter:Encounter",
    "Practitioner/pr1",
    f"Practitioner?_id={ME}",
    "Organization?name=x",
]
"""Whose it is, the answer says."""
NOT_SURELY_MINE = [
    "Patient/pat-2",
    "Patient/pat-2/_history",
    "Patient/pat-2/Observation",
    "Patient/pat-2/$everything",
    "Patient/$everything",
    f"Observation/$lastn?code=1,Patient/{ME}",
    f"Observation/$lastn?performer=Patient/{ME}",
    f"DocumentReference/$docref?type=x,Patient/{ME}",
    "Patient?_id=pat-2",
    f"Patient?_id={ME},pat-2",
    f"Patient?_id={ME}&_id=pat-2",
    "Observation?patient=pat-2",
    f"Observation?patient={ME},pat-2",
    f"Observation?patient={ME}&patient=pat-2",
    f"Observation?patient={ME}&_has:Provenance:target:agent=x",
    f"Observation?patient={ME}&performer:Practitioner.name=x",
    f"Observation?patient.identifier={ME}",
    f"Observation?subject:Patient._id={ME}",
    f"Patient?_id={ME}&_has:Observation:patient:code=1",
    f"Patient?_id={ME}&_has:Group:member:_id=g1",
    f"Patient?_id={ME}&general-practitioner.name=x",
    f"Patient?_id={ME}&_revinclude=Group:member",
    f"Patient/{ME}/Observation?_revinclude=Observation:has-member",
    f"Patient/{ME}/Observation?_has:Provenance:target:agent=x",
    f"Patient/{ME}/Observation?patient=pat-2",
    f"Patient/{ME}/*",
    "Group/g1",
    f"Group?member=Patient/{ME}",
    f"Group?patient={ME}",
    "Group/g1/_history",
    f"Binary?patient={ME}",
    "Binary/b1",
    "_history",
    "Patient/_history",
    "?_type=Patient,Observation",
    f"?_id={ME}&_type=Patient",
    "?_getpages=abc",
]


@pytest.mark.parametrize("held", ["user/*.cruds", "system/*.rs"])
@pytest.mark.parametrize("url", MINE)
def test_a_handle_for_one_patient_reads_what_is_surely_this_patients(url: str, held: str) -> None:
    """HB-02: narrowed from a user's or a system's handle."""
    permit = narrowed(ask("GET", url), held=held)

    assert permit.relies_on_search is (url != "metadata")


@pytest.mark.parametrize("held", ["user/*.cruds", "system/*.rs"])
@pytest.mark.parametrize("url", NOT_SURELY_MINE)
def test_a_handle_for_one_patient_reads_nothing_else(url: str, held: str) -> None:
    """HB-02, PX-14, CX-01."""
    with pytest.raises(InsufficientScope, match=r"another patient|reaches beyond|would show"):
        narrowed(ask("GET", url), held=held)


@pytest.mark.parametrize("url", ADDED_TO)
def test_a_search_by_a_handle_for_one_patient_is_made_to_say_whom(url: str) -> None:
    """HB-02, PX-14: what goes on is what was decided on."""
    permit = narrowed(ask("GET", url))

    asked, sent = (
        parse_qsl(query, keep_blank_values=True) for query in (url.partition("?")[2], permit.interaction.query)
    )
    assert sent[:-1] == asked
    assert sent[-1] == (("_id" if url.startswith("Patient") else "patient"), ME)
    assert permit.interaction.path == url.partition("?")[0]
    assert (permit.rule, permit.relies_on_search) == ("scope bound added checked", True)
    assert narrowed(ask("GET", f"{permit.interaction.path}?{permit.interaction.query}")).needs == permit.needs


@pytest.mark.parametrize("url", SHOWN)
def test_where_only_the_answer_says_whose_it_is_the_permit_wants_it_checked(url: str) -> None:
    """HB-02, PX-14."""
    permit = narrowed(ask("GET", url))

    assert permit.checks is not None
    assert permit.rule.endswith("checked")
    for rule in permit.checks.rules:
        assert rule.patient == Patient(ME, "https://ehr.example/R4")


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        (f"Patient/{ME}/$everything", []),
        ("Encounter/e1/$everything", []),
        ("DocumentReference/$docref", [{"name": "patient", "valueId": ME}]),
    ],
)
def test_an_operation_is_checked_by_whatever_method_it_is_asked_for(path: str, parameters: list[object]) -> None:
    """HB-02, PX-14."""
    body = json.dumps({"resourceType": "Parameters", "parameter": parameters}).encode()
    headers = [(b"content-type", b"application/fhir+json")]
    query = "".join(f"?patient={ME}" for _ in parameters)

    posted = narrowed(parse_interaction("POST", path.encode(), b"", headers, body))

    assert posted.checks is not None
    assert posted.checks == narrowed(ask("GET", path + query)).checks


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("HEAD", "Observation/o1"),
        ("GET", "Observation/o1?_elements=code"),
        ("GET", "Observation/o1?_summary=true"),
        ("GET", f"Observation?patient={ME}&_summary=count"),
        ("GET", f"Observation?patient={ME}&_elements=id"),
    ],
)
def test_what_is_checked_is_asked_for_whole(method: str, url: str) -> None:
    """PX-14."""
    with pytest.raises(InsufficientScope, match=r"without a body|left out"):
        narrowed(ask(method, url))


def test_the_whole_may_be_asked_for_by_name() -> None:
    assert narrowed(ask("GET", f"Observation?patient={ME}&_summary=false")).checks is not None


def test_a_revinclude_of_the_searched_type_is_not_taken_for_the_search() -> None:
    """PX-14: one need stands for both, and a parameter would bind the one only."""
    with pytest.raises(InsufficientScope, match="reaches beyond"):
        narrowed(ask("GET", f"Patient/{ME}/Patient?_revinclude=Patient:link"))


@pytest.mark.parametrize(
    ("method", "url", "allowed"),
    [
        ("PUT", f"Patient/{ME}", True),
        ("PUT", "Patient/pat-2", False),
        ("POST", "Observation", False),
        ("PUT", "Observation/o1", False),
        ("DELETE", "Observation/o1", False),
        ("DELETE", f"Observation?patient={ME}", False),
        ("PATCH", f"Patient?_id={ME}", False),
        ("POST", "Group", False),
    ],
)
def test_a_handle_for_one_patient_writes_only_where_the_url_says_whom(method: str, url: str, *, allowed: bool) -> None:
    """HB-02: what a body would be about is not looked at, so it binds nothing."""
    if allowed:
        assert narrowed(ask(method, url)).interaction.method == method
    else:
        with pytest.raises(InsufficientScope):
            narrowed(ask(method, url))


@pytest.mark.parametrize(
    ("path", "pairs", "allowed"),
    [
        ("Observation/_search", f"patient={ME}", True),
        (f"Patient/{ME}/Observation/_search", "code=1", True),
        ("Observation/_search", "patient=pat-2", False),
        ("Observation/_search", f"patient={ME}&patient=pat-2", False),
        ("Observation/_search", f"patient={ME}&_revinclude=Provenance:target", True),
        ("Observation/_search", "code=1", True),
        ("Observation/_search", "_has:Provenance:target:agent=x", False),
        ("Patient/pat-2/Observation/_search", f"patient={ME}", False),
        ("_search", f"_type=Patient&_id={ME}", False),
    ],
)
def test_a_search_by_form_is_bound_like_one_by_url(path: str, pairs: str, *, allowed: bool) -> None:
    """HB-02."""
    if allowed:
        assert narrowed(form(path, pairs)).relies_on_search
    else:
        with pytest.raises(InsufficientScope, match=r"another patient|reaches beyond"):
            narrowed(form(path, pairs))


@pytest.mark.parametrize("url", [f"Patient/{ME}", f"Observation?patient={ME}"])
@pytest.mark.parametrize("other", ["Patient/pat-2", "Observation", "Patient?name=x", "Observation?patient=pat-2"])
def test_one_entry_of_a_batch_does_not_bind_another(url: str, other: str) -> None:
    """HB-02, SC-09."""
    assert narrowed(batch(url, url)).interaction.kind == "batch"
    for entries in ((url, other), (other, url)):
        with pytest.raises(InsufficientScope):
            narrowed(batch(*entries))


def test_the_answer_to_a_batch_of_reads_is_checked_where_one_of_them_does_not_say_whose_it_is() -> None:
    """HB-02, SC-09."""
    assert narrowed(batch(f"Patient/{ME}", f"Observation?patient={ME}")).checks is None
    permit = narrowed(batch(f"Patient/{ME}", "Observation/o1", "Practitioner/pr1"))

    assert permit.checks is not None
    assert permit.checks.shape == "batch"
    assert {rule.type for rule in permit.checks.rules} == {"Patient", "Observation", "Practitioner"}
    with pytest.raises(InsufficientScope, match="every entry is a read"):
        narrowed(batch("Observation/o1", f"Observation?patient={ME}"))


def test_a_token_that_the_ehr_confines_to_the_same_patient_needs_no_other_binding() -> None:
    permit = narrowed(ask("GET", "Observation/o1"), held="patient/*.rs", context=ME)

    assert not permit.relies_on_search
    assert (permit.checks, permit.rule) == (None, "patient-scope")


@pytest.mark.parametrize("url", MINE)
def test_a_grant_whose_patient_became_another_one_serves_no_handle_for_the_first(url: str) -> None:
    """CX-11."""
    with pytest.raises(InsufficientScope, match="narrowed to another patient"):
        narrowed(ask("GET", url), held=ALL, context="pat-2")


def test_a_patient_scope_gets_no_patient_by_narrowing() -> None:
    """CX-10: the EHR's token was for a patient that nobody knows."""
    with pytest.raises(InsufficientScope, match="CX-10"):
        narrowed(ask("GET", f"Observation?patient={ME}"), held="patient/*.rs", context=None)


# Several apps


def delegated(*chain: str, held: str = "user/*.rs") -> Handle:
    ancestors = tuple(Ancestor(digest=str(n) * 64, app=app_id, counted=False) for n, app_id in enumerate(chain[:-1]))
    return replace(handle(held), app=chain[-1], ancestors=ancestors)


def test_a_delegated_handle_can_do_what_every_policy_of_its_chain_allows() -> None:
    """HB-05, OA-18."""
    find = known(
        app("first", "user/Patient.rs user/Observation.rs"),
        app("second", "user/Observation.rs user/Encounter.rs", ("first",)),
    )
    held = delegated("first", "second")

    assert str(effective_scopes(held, grant("user/*.rs"), find)) == "user/Observation.rs"
    assert decide(held, grant("user/*.rs"), find, ask("GET", "Observation")).handle.actors == ("first", "second")
    for url in ("Patient", "Encounter"):
        with pytest.raises(InsufficientScope, match="no scope covers"):
            decide(held, grant("user/*.rs"), find, ask("GET", url))


@pytest.mark.parametrize(
    ("find", "cause"),
    [
        (known(app("second", "user/*.rs", ("first",))), "app 'first' is not configured"),
        (known(app("first", "user/*.rs")), "app 'second' is not configured"),
        (known(app("first", "user/*.rs"), app("second", "user/*.rs")), "'second' may not exchange handles of app 'fir"),
        (known(app("first", "patient/*.rs"), app("second", "user/*.rs", ("first",))), "no scope covers"),
    ],
)
def test_a_delegated_handle_ends_where_one_of_the_policies_does(find: Callable[[str], App | None], cause: str) -> None:
    """HB-05: policies are asked at each use, not only at the exchange."""
    with pytest.raises(InsufficientScope, match=cause):
        decide(delegated("first", "second"), grant("user/*.rs"), find, ask("GET", "Observation"))


@pytest.mark.parametrize(
    ("first", "second"), [(("$graphql",), ()), ((), ("$graphql",)), (("$graphql",), ("$graphql",))]
)
def test_a_delegated_handle_may_use_an_unknown_operation_if_each_app_may(
    first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    """HB-05, SC-02."""
    find = known(app("first", "user/*.rs", (), first), app("second", "user/*.rs", ("first",), second))
    if first and second:
        decide(delegated("first", "second"), grant("user/*.rs"), find, ask("GET", "$graphql"))
    else:
        with pytest.raises(UninterpretableInteraction, match="does not name"):
            decide(delegated("first", "second"), grant("user/*.rs"), find, ask("GET", "$graphql"))


def test_consent_to_be_exchanged_does_not_pass_on() -> None:
    """HB-05: the third names the second, and not the first; each step is asked for itself."""
    find = known(
        app("first", "user/*.rs"), app("second", "user/*.rs", ("first",)), app("third", "user/*.rs", ("second",))
    )
    permit = decide(delegated("first", "second", "third"), grant("user/*.rs"), find, ask("GET", "Observation"))
    assert permit.handle.actors == ("first", "second", "third")
    with pytest.raises(InsufficientScope, match="'third' may not exchange handles of app 'first'"):
        decide(delegated("first", "third"), grant("user/*.rs"), find, ask("GET", "Observation"))


@pytest.mark.parametrize(
    ("actor", "holder", "allowed"),
    [
        (app("a", "user/*.rs"), "a", True),
        (app("a", "user/*.rs", ("b",)), "b", True),
        (app("a", "user/*.rs", ("b",)), "c", False),
        (app("a", "user/*.rs"), "b", False),
        (None, "a", False),
    ],
)
def test_an_app_exchanges_its_own_handles_and_those_that_its_settings_name(
    actor: App | None, holder: str, *, allowed: bool
) -> None:
    assert may_exchange(actor, holder) is allowed


WORDS = [
    f"{level}/{type_}.{letters}"
    for level in ("user", "system")
    for type_ in ("*", "Patient", "Observation")
    for letters in ("rs", "r", "cruds")
]
scope_sets = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)


@given(held=scope_sets, granted=scope_sets, policies=st.lists(scope_sets, min_size=1, max_size=5))
def test_each_further_app_of_a_chain_only_takes_away(held: str, granted: str, policies: list[str]) -> None:
    """HB-05: nothing widens."""
    apps = [app(f"app{n}", scopes, (f"app{n - 1}",)) for n, scopes in enumerate(policies)]
    names = [one.id for one in apps]
    left = [
        effective_scopes(delegated(*names[: n + 1], held=held), grant(granted), known(*apps)) for n in range(len(names))
    ]

    assert all(later.narrows(earlier) for earlier, later in pairwise(left))
    for n, policy in enumerate(policies):
        assert left[n].narrows(Scopes.parse(policy))
    assert left[0].narrows(Scopes.parse(held).intersection(Scopes.parse(granted)))


@given(
    url=st.sampled_from(MINE + ADDED_TO + SHOWN + NOT_SURELY_MINE),
    held=st.sampled_from(["user/*.rs", "user/Observation.rs"]),
)
def test_what_a_narrowed_handle_may_do_the_wide_one_may_too(url: str, held: str) -> None:
    """HB-05: nothing widens."""
    find = known(app("app", EVERYBODY))

    def is_allowed(patient: str | None) -> bool:
        try:
            decide(handle(held, patient), grant(held, patient=None), find, ask("GET", url))
        except InsufficientScope:
            return False
        return True

    assert is_allowed(None) or not is_allowed(ME)


@pytest.mark.parametrize(
    ("method", "url", "rule"),
    [
        ("GET", f"Patient/{ME}", "scope bound checked"),
        ("HEAD", f"Patient/{ME}", "scope bound"),
        ("GET", f"Patient/{ME}/$summary", "scope bound"),
    ],
)
def test_what_is_bound_is_looked_at_besides_where_an_answer_can_be(method: str, url: str, rule: str) -> None:
    """PX-14."""
    permit = narrowed(ask(method, url))
    assert (permit.rule, permit.checks is not None) == (rule, rule.endswith("checked"))


def test_of_an_answer_to_a_search_that_says_the_filters_it_is_checked_whose_it_is_alone() -> None:
    """SC-05, PX-14: the EHR has filtered, and may know more of a code than the answer says."""
    permit = narrowed(ask("GET", f"Observation?patient={ME}&category=x"), held="user/Observation.rs?category=x")

    assert permit.checks is not None
    assert [(rule.type, rule.filters) for rule in permit.checks.rules] == [("Observation", ())]
