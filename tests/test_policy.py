"""The decision as a table: what a handle may do, given its scopes, its grant's and its app's policy."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from broker.apps import Allowance, App
from broker.errors import InsufficientScope, ReauthorizationRequired, UninterpretableInteraction
from broker.grants import Grant, GrantState, LaunchContext, Terms
from broker.handles import Handle
from broker.interactions import Interaction, parse_interaction
from broker.policy import Permit, decide
from broker.scopes import Scopes
from broker.settings import AppSettings, RegistrationSettings

ME = "pat-1"
REGISTRATION = RegistrationSettings(
    id="launch", ehr=("sandbox",), flow="launch", client_id="c", authentication="none", scopes="patient/*.cruds"
)


def app(scopes: str, registration: RegistrationSettings = REGISTRATION, *operations: str) -> App:
    return App(
        AppSettings(id="app", authentication="none"),
        (Allowance(registration=registration, scopes=Scopes.parse(scopes), operations=frozenset(operations)),),
    )


def handle(scopes: str, patient: str | None = None) -> Handle:
    return Handle(
        digest="h" * 64,
        tag="t",
        app="app",
        ehr="sandbox",
        scopes=Scopes.parse(scopes),
        family="f",
        expires_at=9e9,
        patient=patient,
    )


def known(*apps: App) -> Callable[[str], App | None]:
    return {app.id: app for app in apps}.get


def grant(scopes: str, patient: str | None = ME) -> Grant:
    terms = Terms(
        ehr="sandbox",
        fhir_base="https://ehr.example/R4",
        registration="launch",
        flow="launch",
        app="app",
        scopes=Scopes.parse(scopes),
        context=LaunchContext(patient=patient),
    )
    return Grant(
        tag="t",
        terms=terms,
        state="active",
        generation=1,
        created_at=0,
        since=0,
        renew_at=9e9,
        expires_at=9e9,
        refreshable=True,
        cause=None,
        sealed_tokens=b"",
    )


def ask(method: str, url: str) -> Interaction:
    path, _, query = url.partition("?")
    return parse_interaction(method, path.encode(), query.encode(), (), None)


def decided(method: str, url: str, *, held: str, granted: str | None = None, policy: str | None = None) -> Permit:
    interaction = ask(method, url)
    return decide(handle(held), grant(granted or held), known(app(policy or held)), interaction)


ALL = "patient/*.cruds user/*.cruds"


@pytest.mark.parametrize(
    ("method", "url", "held"),
    [
        ("GET", f"Patient/{ME}", "patient/Patient.r"),
        ("GET", "Observation/o1", "patient/Observation.r"),
        ("GET", f"Observation?patient={ME}", "patient/Observation.s"),
        ("GET", "Observation", "patient/Observation.s"),
        ("GET", "Observation?patient=pat-2", "user/Observation.s"),
        ("POST", "Observation", "patient/Observation.c"),
        ("GET", "Observation?category=vital-signs", "patient/Observation.s?category=vital-signs"),
        ("GET", f"Patient/{ME}/$everything", "patient/*.rs"),
    ],
)
def test_what_the_scopes_cover_is_allowed(method: str, url: str, held: str) -> None:
    assert decided(method, url, held=held).interaction.method == method


@pytest.mark.parametrize(
    ("method", "url", "held", "granted", "policy"),
    [
        ("GET", f"Patient/{ME}", "patient/Observation.r", ALL, ALL),
        ("GET", f"Patient/{ME}", "patient/*.rs", "patient/Observation.rs", ALL),
        ("GET", f"Patient/{ME}", "patient/*.rs", ALL, "patient/Observation.rs"),
        ("POST", "Observation", "patient/Observation.rs", ALL, ALL),
        ("GET", "Observation", "patient/Observation.r", ALL, ALL),
        ("GET", "Observation/o1", "patient/Observation.s", ALL, ALL),
        ("GET", "Observation", "patient/Observation.s?_lastUpdated=gt2020", ALL, ALL),
        ("GET", "Observation/o1", "patient/Observation.r?date=2020", ALL, ALL),
        ("POST", "Observation", "patient/Observation.c?category=vital-signs", ALL, ALL),
        ("PUT", "Observation/o1", "patient/Observation.u?category=vital-signs", ALL, ALL),
        ("DELETE", "Observation?category=vital-signs", "patient/Observation.cruds?category=vital-signs", ALL, ALL),
        (
            "GET",
            f"Observation?patient={ME}&_include=Observation:encounter:Encounter",
            "patient/Observation.rs",
            ALL,
            ALL,
        ),
        ("GET", "?_type=Observation,Patient", "user/Observation.rs", ALL, ALL),
        ("GET", f"Patient/{ME}/$everything", "patient/Observation.rs patient/Patient.rs", ALL, ALL),
        ("GET", "Observation", "system/Observation.rs", "user/Observation.rs", ALL),
    ],
)
def test_what_one_of_the_three_leaves_out_is_refused(
    method: str, url: str, held: str, granted: str, policy: str
) -> None:
    """TR-05, SC-02, SC-05."""
    with pytest.raises(InsufficientScope):
        decided(method, url, held=held, granted=granted, policy=policy)


def test_what_a_handle_cannot_reach_of_its_grant_and_policy_does_not_count() -> None:
    """SC-05: of nine filters and nine others the handle has one, so there is less to hold against each other."""
    nine, others = (" ".join(f"user/Observation.rs?{name}={n}" for n in range(9)) for name in ("category", "status"))
    permit = decided(
        "GET", "Observation?category=1&status=2", held="user/Observation.s?category=1", granted=nine, policy=others
    )
    assert permit.relies_on_search


@pytest.mark.parametrize(
    "url",
    [
        "Patient/pat-2",
        "Observation?patient=pat-2",
        "Observation?subject=Patient/pat-2",
        f"Observation?patient={ME},pat-2",
        "Patient/pat-2/Observation",
        "Patient?_id=pat-2",
        "Patient/pat-2/$everything",
    ],
)
def test_a_handle_for_one_patient_cannot_read_another(url: str) -> None:
    """PX-14, CX-01."""
    with pytest.raises(InsufficientScope, match="another patient"):
        decided("GET", url, held="patient/*.rs")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        (f"Patient/{ME}", True),
        (f"Observation?patient={ME}", True),
        (f"Observation?subject=Patient/{ME}", True),
        (f"Patient/{ME}/Encounter", True),
        (f"Patient?_id={ME}", True),
        (f"Patient/{ME}/$everything", True),
        ("_history", False),
        ("?_type=Observation,Encounter", False),
        (f"Patient/{ME}/Observation?_revinclude=Provenance:target", False),
        ("Binary/b1", False),
        ("Practitioner/pr1", False),
    ],
)
def test_where_the_ehrs_token_reaches_further_the_request_binds_itself(url: str, *, allowed: bool) -> None:
    """PX-14."""
    if allowed:
        assert decided("GET", url, held="patient/*.rs", granted=ALL).interaction.query == url.partition("?")[2]
    else:
        with pytest.raises(InsufficientScope, match=r"reaches beyond|would show"):
            decided("GET", url, held="patient/*.rs", granted=ALL)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        (f"Patient/{ME}/$summary", True),
        (f"Patient/{ME}/$meta", True),
        (f"DocumentReference/$docref?patient={ME}", True),
        (f"List/$find?patient={ME}&name=x", True),
        ("DocumentReference/$docref", False),
        ("List/$find?name=x", False),
        ("Patient/$everything", False),
        ("Patient/$summary?identifier=x", False),
        ("Patient/$meta", False),
        ("Composition/c1/$document", False),
        ("Observation/o1/$meta", False),
        ("Observation/$lastn?code=x", False),
        (f"Patient/{ME}/$graphql", False),
        (f"Observation/$stats?patient={ME}", False),
    ],
)
def test_where_the_ehrs_token_reaches_further_an_operation_is_bound_by_its_definition(
    url: str, *, allowed: bool
) -> None:
    """PX-14."""
    named = app(ALL, REGISTRATION, "Patient/$graphql", "Observation/$stats")
    if allowed:
        decide(handle("patient/*.rs"), grant(ALL), known(named), ask("GET", url))
    else:
        with pytest.raises(InsufficientScope, match="reaches beyond"):
            decide(handle("patient/*.rs"), grant(ALL), known(named), ask("GET", url))


STATS = "Observation/$stats"


@pytest.mark.parametrize(
    ("method", "url", "held", "named"),
    [
        ("GET", "$graphql", "patient/*.rs", ("$graphql",)),
        ("POST", "$graphql", "user/*.cruds", ("$graphql",)),
        ("GET", STATS, "patient/*.rs", (STATS,)),
        ("GET", "Observation/o1/$stats", "patient/*.rs", (STATS,)),
    ],
)
def test_an_operation_of_unknown_reach_is_for_who_may_do_everything_and_is_named(
    method: str, url: str, held: str, named: tuple[str, ...]
) -> None:
    """SC-02."""
    permit = decide(handle(held), grant(held), known(app(held, REGISTRATION, *named)), ask(method, url))
    assert permit.interaction.operation == named[0].rpartition("/")[2]


@pytest.mark.parametrize(
    ("method", "url", "held", "named", "why"),
    [
        ("GET", "$graphql", "patient/*.rs", (), UninterpretableInteraction),
        ("GET", "$graphql", "patient/*.cruds", ("Patient/$graphql", "$graph"), UninterpretableInteraction),
        ("GET", f"Patient/{ME}/$graphql", "patient/*.cruds", ("$graphql",), UninterpretableInteraction),
        ("GET", "Condition/$stats", "patient/*.cruds", (STATS, "$stats"), UninterpretableInteraction),
        ("GET", "$graphql", "patient/*.r", ("$graphql",), InsufficientScope),
        ("GET", "$graphql", "patient/Patient.cruds patient/Observation.cruds", ("$graphql",), InsufficientScope),
        ("GET", STATS, "patient/Observation.rs", (STATS,), InsufficientScope),
        ("POST", "$graphql", "patient/*.rs", ("$graphql",), InsufficientScope),
        ("POST", "$graphql", "patient/*.crus", ("$graphql",), InsufficientScope),
        ("GET", "Patient/pat-2/$graphql", "patient/*.cruds", ("Patient/$graphql",), InsufficientScope),
    ],
)
def test_an_operation_of_unknown_reach_is_refused_to_all_others(
    method: str, url: str, held: str, named: tuple[str, ...], why: type[Exception]
) -> None:
    """SC-02, PX-14."""
    with pytest.raises(why):
        decide(handle(held), grant(held), known(app(held, REGISTRATION, *named)), ask(method, url))


@pytest.mark.parametrize(
    ("url", "query", "rule"),
    [
        ("Observation", f"patient={ME}", "patient-scope bound added"),
        ("Observation?code=1234-5", f"code=1234-5&patient={ME}", "patient-scope bound added"),
        ("Patient?name=Shaw", f"name=Shaw&_id={ME}", "patient-scope bound added"),
        (f"Immunization?subject=Patient/{ME}", f"subject=Patient/{ME}&patient={ME}", "patient-scope bound added"),
        (f"Patient/{ME}/Device", f"patient={ME}", "patient-scope bound added"),
        ("Observation/o1", "", "patient-scope checked"),
        ("Encounter/e1/$everything", "", "patient-scope checked"),
        (f"Observation/$lastn?patient={ME}", f"patient={ME}", "patient-scope checked"),
        (
            f"Patient/{ME}/Observation?_include=Observation:has-member:Observation",
            f"_include=Observation:has-member:Observation&patient={ME}",
            "patient-scope bound added checked",
        ),
        (
            f"Observation?patient={ME}&_include=Observation:encounter:Encounter",
            f"patient={ME}&_include=Observation:encounter:Encounter",
            "patient-scope bound checked",
        ),
    ],
)
def test_what_does_not_bind_itself_is_bound_by_what_is_added_or_by_what_is_answered(
    url: str, query: str, rule: str
) -> None:
    """PX-14."""
    permit = decided("GET", url, held="patient/*.rs", granted=ALL)

    assert (permit.interaction.query, permit.rule) == (query, rule)
    assert (permit.checks is not None) is rule.endswith("checked")


@pytest.mark.parametrize(
    "url",
    [
        f"Binary?patient={ME}",
        f"Group?patient={ME}",
        f"Organization?subject=Patient/{ME}",
        f"Patient/{ME}/Organization",
        f"Patient/{ME}/Practitioner",
        f"Patient/{ME}/Medication",
        f"Patient/{ME}/Group",
        f"Patient/{ME}/*",
        f"Patient/{ME}/Observation?_revinclude=Observation:has-member",
        f"Patient/{ME}/Encounter?_revinclude:iterate=Encounter:part-of",
        f"Patient/{ME}/Observation?has-member:Observation.code=x",
        f"Patient/{ME}/Patient?_revinclude=Patient:link",
    ],
)
def test_a_parameter_or_compartment_that_the_type_does_not_have_and_an_include_bind_nothing(url: str) -> None:
    with pytest.raises(InsufficientScope, match="reaches beyond"):
        decided("GET", url, held="patient/*.rs", granted=ALL)


@pytest.mark.parametrize("granted", ["user/Encounter.rs", "user/Observation.rs?category=vital-signs", "system/*.r"])
@pytest.mark.parametrize(
    "url", ["Encounter?_has:Observation:encounter:code=1", "?_type=Observation,Encounter&_count=9"]
)
def test_a_token_that_reaches_further_in_one_type_or_with_a_filter_reaches_further(granted: str, url: str) -> None:
    with pytest.raises(InsufficientScope, match="reaches beyond"):
        decided("GET", url, held="patient/*.rs", granted=f"patient/*.cruds {granted} user/Observation.s?code=1")


@pytest.mark.parametrize(
    ("url", "held", "granted", "relies"),
    [
        ("Observation", "patient/*.rs", "patient/*.rs", False),
        (f"Observation?patient={ME}", "patient/*.rs", "patient/*.rs", False),
        (f"Observation?patient={ME}", "patient/*.rs", ALL, True),
        ("Observation?category=x", "user/Observation.s?category=x", ALL, True),
        ("Observation?category=x", "user/Observation.s", ALL, False),
    ],
)
def test_a_permit_says_whether_it_counts_on_a_search_parameter(
    url: str, held: str, granted: str, *, relies: bool
) -> None:
    assert decided("GET", url, held=held, granted=granted, policy=ALL).relies_on_search is relies


def test_a_patient_scope_without_a_patient_in_context_allows_nothing() -> None:
    """CX-10, NC-08."""
    scopes = "patient/*.rs"
    with pytest.raises(InsufficientScope, match="CX-10"):
        decide(handle(scopes), grant(scopes, patient=None), known(app(scopes)), ask("GET", "Observation"))


@pytest.mark.parametrize("state", ["revoked", "needs_reauth", "uncertain"])
def test_a_grant_that_is_not_active_allows_nothing(state: GrantState) -> None:
    ended = replace(grant("user/*.rs"), state=state, serves=False)
    with pytest.raises(ReauthorizationRequired):
        decide(handle("user/*.rs"), ended, known(app("user/*.rs")), ask("GET", "Observation"))


def test_an_uncertain_grant_allows_what_it_did_until_its_token_ends() -> None:
    """RF-05."""
    uncertain = replace(grant("user/*.rs"), state="uncertain")
    permit = decide(handle("user/*.rs"), uncertain, known(app("user/*.rs")), ask("GET", "Observation"))
    assert permit.grant is uncertain


def test_an_app_that_is_no_longer_configured_may_do_nothing() -> None:
    with pytest.raises(InsufficientScope, match="not configured"):
        decide(handle("user/*.rs"), grant("user/*.rs"), known(), ask("GET", "Observation"))


def test_an_app_whose_policy_names_another_registration_now_may_do_nothing() -> None:
    other = REGISTRATION.model_copy(update={"id": "other"})
    with pytest.raises(InsufficientScope, match="no longer"):
        decide(
            handle("user/*.rs"),
            grant("user/*.rs"),
            known(app("user/*.rs", other)),
            ask("GET", "Observation"),
        )


def test_a_permit_cannot_be_made_by_anybody_else() -> None:
    permit = decided("GET", "Observation", held="user/*.rs")

    with pytest.raises(TypeError, match="alone"):
        replace(permit, made_by=object())
