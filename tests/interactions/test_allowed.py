import pytest

from broker.errors import UninterpretableInteraction
from broker.interactions import Need, parse_page, wants_body
from tests.interactions.asking import FORM, JSON, ask, ask_by_form, needs

SHOWN = "return=representation"


@pytest.mark.parametrize(
    ("line", "kind", "needed", "safe"),
    [
        ("GET Patient/1", "read", "Patient.r", True),
        ("HEAD Patient/1", "read", "Patient.r", True),
        ("GET Patient/x", "read", "Patient.r", True),
        ("GET Patient/1?_format=json&_summary=true", "read", "Patient.r", True),
        ("GET Observation/a-b.C.9/_history/7", "vread", "Observation.r", True),
        ("GET Observation/1/_history", "history-instance", "Observation.r", True),
        ("GET Observation/1/_history?_count=5&_since=2020-01-01", "history-instance", "Observation.r", True),
        (
            "GET Observation/1/_history?_at=2020&_sort=-_lastUpdated&_total=none",
            "history-instance",
            "Observation.r",
            True,
        ),
        ("GET Observation/1/_history?_format=json", "history-instance", "Observation.r", True),
        ("GET Observation/_history", "history-type", "Observation.s", True),
        ("GET _history?_since=2020-01-01", "history-system", "*.s", True),
        ("GET Observation", "search-type", "Observation.s", True),
        ("HEAD Observation?code=1", "search-type", "Observation.s", True),
        ("GET Observation?code=1&_count=5&_sort=-date,_lastUpdated&_total=none", "search-type", "Observation.s", True),
        ("GET Observation?date=ge2020&value-quantity:missing=true", "search-type", "Observation.s", True),
        ("GET Procedure?bodySite=123", "search-type", "Procedure.s", True),
        ("GET ", "search-system", "*.s", True),
        ("GET ?_lastUpdated=ge2020", "search-system", "*.s", True),
        ("GET ?_type=Patient,Observation&_id=1", "search-system", "Patient.s Observation.s", True),
        ("GET ?_type=Patient&_type=Observation", "search-system", "Patient.s Observation.s", True),
        ("GET ?_getpages=abc&_getpagesoffset=20&_count=20", "search-page", "*.s", True),
        ("GET ?_getpages=abc&_include=Observation:performer:Practitioner", "search-page", "*.s Practitioner.r", True),
        ("GET ?_getpages=abc&_pageId=x&_bundletype=searchset", "search-page", "*.s", True),
        ("GET Patient/1/Observation?code=1", "search-compartment", "Observation.s", True),
        ("GET Practitioner/1/Observation", "search-compartment", "Observation.s", True),
        ("GET RelatedPerson/1/Observation", "search-compartment", "Observation.s", True),
        ("GET Patient/1/*", "search-compartment", "*.s", True),
        ("GET Encounter/1/Condition", "search-compartment", "Condition.s", True),
        ("POST Observation", "create", "Observation.c", False),
        ("POST Observation?_format=json", "create", "Observation.c", False),
        ("POST Observation?_pretty=true", "create", "Observation.c", False),
        ("PUT Observation/1", "update", "Observation.u", False),
        ("PATCH Observation/1", "patch", "Observation.u", False),
        ("DELETE Observation/1", "delete", "Observation.d", False),
        ("PUT Observation?identifier=a", "conditional-update", "Observation.u Observation.c Observation.s", False),
        ("PATCH Observation?identifier=a", "conditional-patch", "Observation.u Observation.s", False),
        ("DELETE Observation?identifier=a&_format=json", "conditional-delete", "Observation.d Observation.s", False),
        ("GET Patient/1/$everything", "operation", "Patient.r *.r *.s", True),
        ("GET Patient/$everything", "operation", "Patient.r *.r *.s", True),
        ("GET Encounter/1/$everything?_count=5", "operation", "Encounter.r *.r *.s", True),
        ("GET Patient/1/$everything?_type=Observation", "operation", "Patient.r Observation.r Observation.s", True),
        ("GET Observation/$lastn?code=1&max=3", "operation", "Observation.r Observation.s", True),
        ("GET metadata", "capabilities", "", True),
        ("GET metadata?mode=full&_format=json", "capabilities", "", True),
    ],
)
def test_an_interaction_needs_its_letters(line: str, kind: str, needed: str, *, safe: bool) -> None:
    """SC-02."""
    interaction = ask(line)
    assert (interaction.kind, needs(interaction), interaction.safe) == (kind, needed, safe)
    assert f"{interaction.method} {interaction.path}" == line.partition("?")[0]
    assert ask(f"{interaction.method} {interaction.path}?{interaction.query}") == interaction


@pytest.mark.parametrize(
    ("query", "needed"),
    [
        ("_include=Observation:performer:Practitioner", "Practitioner.r"),
        ("_include=Observation:patient", "Patient.r"),
        ("_include=MedicationRequest:medication", "Medication.r"),
        ("_include=Observation:subject", "*.r"),
        ("_include=Observation:*", "*.r"),
        ("_include=*", "*.r"),
        ("_include:iterate=Patient:general-practitioner:Organization", "Organization.r"),
        ("_include:recurse=Patient:link:Patient", "Patient.r"),
        ("_revinclude=Provenance:target", "Provenance.s"),
        ("_revinclude=Provenance:target:Observation", "Provenance.s"),
        ("_revinclude:iterate=Task:focus", "Task.s"),
        ("_revinclude=Task:*", "Task.s"),
        ("_revinclude=*", "*.s"),
        ("subject:Patient.name=x", "Patient.s"),
        ("patient.name=x", "Patient.s"),
        ("subject.name=x", "*.s"),
        ("subject:Patient.organization:Organization.name:exact=x", "Patient.s Organization.s"),
        ("encounter:Encounter.location.name=x", "Encounter.s *.s"),
        ("_has:Provenance:target:agent=x", "Provenance.s"),
        ("_has:Group:member:_has:Task:focus:status=x", "Group.s Task.s"),
        ("_has:Encounter:diagnosis:patient.name=x", "Encounter.s Patient.s"),
        ("patient._has:Group:member:code=x", "Patient.s Group.s"),
        ("subject:Patient=1", ""),
        ("_id=1&_tag=a&_profile=b&_security=c&_source=d&_text=e&_content=f&_language=en&_lastUpdated=gt2020", ""),
        ("_elements=id,code&_summary=data&_pretty=true&_offset=20&_totalMethod=count", ""),
        ("code:in=http://v.example/s&code:not=x&code:not-in=y&code:text=z&code:below=a&code:above=b", ""),
    ],
)
@pytest.mark.parametrize("by", ["url", "form", "compartment"])
def test_a_search_needs_what_it_reaches_beyond_its_type(query: str, needed: str, by: str) -> None:
    """SC-02."""
    path = {"url": "GET Observation", "compartment": "GET Device/1/Observation"}.get(by)
    interaction = ask(f"{path}?{query}") if path else ask_by_form("Observation/_search", query)
    assert needs(interaction) == f"Observation.s {needed}".strip()


def test_a_search_by_form_is_the_same_search_and_may_be_sent_again() -> None:
    """EP-22, PX-08, SC-02."""
    by_form, by_url = (
        ask_by_form("Observation/_search", "code=a|b&date=ge2020"),
        ask("GET Observation?code=a|b&date=ge2020"),
    )
    assert by_form.needs == by_url.needs
    assert by_form.parameters == by_url.parameters == (("code", "a|b"), ("date", "ge2020"))
    assert (by_form.kind, by_form.path, by_form.query) == ("search-type", "Observation/_search", "")
    assert by_form.body == b"code=a%7Cb&date=ge2020"
    assert by_form.safe


@pytest.mark.parametrize(
    ("path", "kind", "needed"),
    [
        ("_search", "search-system", "*.s"),
        ("Patient/1/Observation/_search", "search-compartment", "Observation.s"),
        ("Patient/1/*/_search", "search-compartment", "*.s"),
        ("Patient/_search?_format=json", "search-type", "Patient.s"),
    ],
)
def test_every_search_may_be_by_form(path: str, kind: str, needed: str) -> None:
    interaction = ask_by_form(path, "")
    assert (interaction.kind, needs(interaction), interaction.body) == (kind, needed, b"")


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=UTF-8", f'{FORM.upper()} ;charset="utf-8"'])
def test_a_form_is_utf_8_however_it_says_so(content_type: str) -> None:
    assert ask("POST Patient/_search", b"name=%C3%A9", Content_Type=content_type).parameters == (("name", "é"),)


@pytest.mark.parametrize(
    ("line", "headers", "kind", "needed"),
    [
        ("POST Patient", {"If_None_Exist": "identifier=a|b"}, "conditional-create", "Patient.c Patient.s"),
        (
            "POST Patient",
            {"if_none_exist": "organization:Organization.name=a"},
            "conditional-create",
            "Patient.c Patient.s Organization.s",
        ),
        (
            "POST Patient",
            {"If_None_Exist": "identifier=a", "Prefer": SHOWN},
            "conditional-create",
            "Patient.c Patient.s Patient.r",
        ),
        ("POST Patient", {"Prefer": SHOWN}, "create", "Patient.c"),
        ("PUT Patient/1", {"If_Match": 'W/"1"'}, "update", "Patient.u"),
        ("PUT Patient/1", {"If_None_Match": "*"}, "update", "Patient.u Patient.c"),
        ("PATCH Patient/1", {"If_None_Match": "*"}, "patch", "Patient.u"),
        ("DELETE Patient/1", {"If_None_Match": "*"}, "delete", "Patient.d"),
        ("PUT Patient/1", {"Prefer": SHOWN}, "update", "Patient.u"),
        ("PATCH Patient/1", {"Prefer": "return=minimal"}, "patch", "Patient.u"),
        ("PATCH Patient/1", {"Prefer": 'handling=strict;RETURN = "representation"'}, "patch", "Patient.u Patient.r"),
        ("PATCH Patient?identifier=a", {"Prefer": SHOWN}, "conditional-patch", "Patient.u Patient.s Patient.r"),
        ("GET Patient/1", {"If_None_Match": 'W/"1"', "Prefer": SHOWN}, "read", "Patient.r"),
    ],
)
def test_a_header_may_add_to_what_a_write_needs(line: str, headers: dict[str, str], kind: str, needed: str) -> None:
    interaction = ask(line, **headers)
    assert (interaction.kind, needs(interaction)) == (kind, needed)


@pytest.mark.parametrize(
    ("line", "query", "parameters"),
    [
        (
            "GET Observation?code=http://loinc.org|1-2",
            "code=http://loinc.org%7C1-2",
            (("code", "http://loinc.org|1-2"),),
        ),
        ("GET Observation?code=a%7Cb", "code=a%7Cb", (("code", "a|b"),)),
        ("GET Observation?%63ode=a", "code=a", (("code", "a"),)),
        ("GET Patient?name=a+b%2Bc", "name=a%20b%2Bc", (("name", "a b+c"),)),
        ("GET Patient?name=a%26b%3Dc%3Bd%23", "name=a%26b%3Dc%3Bd%23", (("name", "a&b=c;d#"),)),
        ("GET Patient?name=a=b", "name=a%3Db", (("name", "a=b"),)),
        ("GET Patient?name=a%2541", "name=a%2541", (("name", "a%41"),)),
        ("GET Patient?name=%e2%82%ac", "name=%E2%82%AC", (("name", "€"),)),
        (
            "GET Patient?_has%3ATask%3Afocus%3Acode=1,2$3",
            "_has:Task:focus:code=1,2$3",
            (("_has:Task:focus:code", "1,2$3"),),
        ),
        ("GET Patient/1?_format=json", "_format=json", (("_format", "json"),)),
        ("GET Patient?b=2&a=1&b=1", "b=2&a=1&b=1", (("b", "2"), ("a", "1"), ("b", "1"))),
    ],
)
def test_what_is_forwarded_is_rebuilt_from_what_was_understood(
    line: str, query: str, parameters: tuple[tuple[str, str], ...]
) -> None:
    interaction = ask(line)
    assert (interaction.query, interaction.parameters) == (query, parameters)


@pytest.mark.parametrize(
    ("line", "patients"),
    [
        ("GET Patient/a", ("a",)),
        ("PUT Patient/a", ("a",)),
        ("GET Patient/a/_history/1", ("a",)),
        ("GET Patient/a/$everything", ("a",)),
        ("GET Patient/a/Observation?subject=Patient/b", ("a", "b")),
        ("GET Patient/_history", ()),
        ("GET Patient/$everything", ()),
        ("GET Observation/a", ()),
        ("GET Observation?patient=a", ("a",)),
        ("GET Observation?patient=Patient/a", ("a",)),
        ("GET Observation?patient=a,Patient/b,a", ("a", "b")),
        ("GET Observation?p%61tient=a&patient=b", ("a", "b")),
        ("GET Observation?pAtient=a", ("a",)),
        ("GET Observation?patient:Patient=a", ("a",)),
        ("GET Observation?subject=Patient/a", ("a",)),
        ("GET Observation?subject:Patient=a,b", ("a", "b")),
        ("GET Observation?subject=Group/a", ()),
        ("GET Patient?_id=a,b", ("a", "b")),
        ("GET Observation?_id=a", ()),
        ("GET ?_id=a", ("a",)),
        ("GET Encounter?subject._id=a", ("a",)),
        ("GET Encounter?subject:Patient._id=a", ("a",)),
        ("GET Encounter?subject:Device._id=a", ()),
        ("GET Encounter?_has:Observation:encounter:patient=a", ("a",)),
        ("GET Appointment?actor=Practitioner/a,Patient/b", ("b",)),
        ("GET Appointment?actor:Patient=a", ("a",)),
        ("GET Appointment?actor=PATIENT/a", ("a",)),
        ("GET Task?focus=https://ehr.example/fhir/Patient/a/_history/1", ("a",)),
        ("DELETE Observation?patient=a", ("a",)),
        ("GET Observation?code=Patient", ()),
    ],
)
def test_every_patient_that_a_request_names_is_known(line: str, patients: tuple[str, ...]) -> None:
    """PX-14."""
    assert ask(line).patients == patients


def test_a_conditional_create_names_the_patients_of_its_criteria() -> None:
    assert ask("POST Observation", If_None_Exist=" patient=a&subject=Patient/x\t").patients == ("a", "x")


def test_a_filter_counts_for_the_searched_type_and_for_nothing_that_comes_with_it() -> None:
    """SC-05."""
    interaction = ask(
        "GET DiagnosticReport?category=lab&_count=5&_include=DiagnosticReport:result:Observation&patient.name=x"
    )
    assert interaction.needs == (
        Need("DiagnosticReport", "s", (("category", "lab"), ("patient.name", "x"))),
        Need("Observation", "r"),
        Need("Patient", "s"),
    )


@pytest.mark.parametrize(
    "line",
    [
        "GET ?_type=Observation&category=lab",
        "GET Patient/1/*?category=lab",
        "GET Observation/$lastn?category=lab",
        "DELETE Observation?category=lab",
        "GET ?_getpages=x&category=lab",
    ],
)
def test_a_filter_that_may_not_restrict_counts_for_nothing(line: str) -> None:
    """SC-06."""
    assert {need.parameters for need in ask(line).needs} == {()}


@pytest.mark.parametrize(
    ("line", "type_", "id_", "label"),
    [
        ("GET Patient/secret", "Patient", "secret", "read Patient"),
        ("GET Patient/secret/_history/secret", "Patient", "secret", "vread Patient"),
        ("GET Observation?patient=secret&code=secret", "Observation", None, "search-type Observation"),
        ("GET Patient/secret/Observation?code=secret", "Observation", None, "search-compartment Observation"),
        ("GET Patient/secret/*", None, None, "search-compartment"),
        ("GET ?_getpages=secret", None, None, "search-page"),
        ("GET Patient/secret/$everything", "Patient", "secret", "operation Patient $everything"),
        ("GET Patient/secret/$secret", "Patient", "secret", "operation Patient"),
        ("GET metadata", None, None, "capabilities"),
    ],
)
def test_a_label_and_a_repr_hold_no_id_and_no_value(line: str, type_: str | None, id_: str | None, label: str) -> None:
    interaction = ask(line)
    assert (interaction.type, interaction.id, interaction.label) == (type_, id_, label)
    assert "secret" not in interaction.label + repr(interaction)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("GET Patient/1", None),
        ("GET metadata", None),
        ("GET $graphql", "$graphql"),
        ("GET Observation/$stats", "Observation/$stats"),
        ("GET Observation/1/$stats", "Observation/$stats"),
    ],
)
def test_an_operation_is_named_at_its_type(line: str, named: str | None) -> None:
    """SC-02."""
    assert ask(line).named == named


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("POST", b"", True),
        ("POST", b"_search", True),
        ("POST", b"Patient/_search", True),
        ("POST", b"Patient/1/Observation/_search", True),
        ("POST", b"Patient/1/$everything", True),
        ("POST", b"CodeSystem/$lookup", True),
        ("POST", b"$graphql", False),
        ("POST", b"Patient/1/$everything/1", False),
        ("GET", b"Patient/1/$everything", False),
        ("POST", b"Patient", False),
        ("PUT", b"Patient/1", False),
        ("GET", b"", False),
        ("GET", b"Patient/_search", False),
        ("POST", b"Patient_search", False),
    ],
)
def test_a_body_is_wanted_only_where_it_decides(method: str, path: bytes, *, wanted: bool) -> None:
    assert wants_body(method, path) is wanted


def test_a_body_that_does_not_decide_streams_through() -> None:
    assert ask("POST Patient", b"not looked at", Content_Type=JSON).body is None


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("path", "type_"), [(b"", None), (b"Observation", "Observation")])
def test_a_page_is_got_from_the_base_or_from_a_type(method: str, path: bytes, type_: str | None) -> None:
    """PX-07."""
    page = parse_page(method, path, b"abc=1", ())
    assert (page.kind, page.method, page.type, page.path) == ("search-page", method, type_, path.decode())


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [("POST", b"", ()), ("GET", b"Observation/1", ()), ("GET", b"", [(b"if-none-exist", b"identifier=1")])],
)
def test_nothing_else_is_a_page(method: str, path: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """PX-07."""
    with pytest.raises(UninterpretableInteraction):
        parse_page(method, path, b"abc=1", headers)
