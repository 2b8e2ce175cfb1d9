"""Ways around a check: each is refused before anything is decided, and nothing of it is repeated."""

import pytest

from broker.errors import UninterpretableInteraction
from broker.interactions import parse_interaction
from tests.interactions.asking import FORM, ask, ask_by_form

PATHS = [
    "/",
    "//",
    "/Patient/1",
    "Patient/",
    "Patient//",
    "Patient//1",
    "Patient/1/",
    "Patient/1//_history",
    ".",
    "..",
    "../Patient/1",
    "./Patient/1",
    "Patient/.",
    "Patient/..",
    "Patient/...",
    "Patient/1/..",
    "Patient/1/../2",
    "Patient/../Observation/1",
    "Observation/1/../../Patient/2",
    "Patient/%2e%2e/Observation",
    "Patient/%2E%2E%2FObservation",
    "Patient/..%2f2",
    "Patient%2f1",
    "Patient/1%2f..%2f2",
    "Patient%252f1",
    "%50atient/1",
    "Patient/%31",
    "Patient/1%00",
    "Patient/1%0d%0aX-Header:%20a",
    "Patient/1\x00",
    "Patient/1\r\nX-Header: a",
    "Patient/1\n",
    "Patient/1 ",
    "Patient/1\t",
    "Patient /1",
    "Patient;x=y/1",
    "Patient/1;x=y",
    "Patient/..;/Observation",
    "Patient/1;/../2",
    "Patient\\1",
    "Patient/1\\..\\2",
    "Patient/1:80",
    "Patient/1@ehr.example",
    "Patient/1#",
    "Patient/1#/Observation",
    "Patient/1~",
    "Patient/1,2",
    "Patient/1|2",
    "Patient/1+2",
    "Patient/1=2",
    "Patient/1!",
    "Patient/(1)",
    "Patient/{id}",
    "Patient/'1'",
    'Patient/"1"',
    "Patient/<1>",
    "Patient/é",
    "Pàtient/1",
    "\uff30atient/1",
    "Patient/\uff11",
    "Patient/1\u2024\u2024/2",
    "Patient/" + "a" * 65,
    "Patient/a_b",
    "Patient/urn:uuid:1",
    "http://ehr.example/Patient/1",
    "https:/ehr.example/Patient/1",
    "//ehr.example/Patient/1",
    "patient/1",
    "PATIENT1/1",
    "pATIENT/1",
    "PATIENT/1",
    "PAtient",
    "RESOURCE/1",
    "P/1",
    "*",
    "*/1",
    "$/1",
    "Patient*/1",
    "Resource",
    "Resource/1",
    "Metadata",
    "METADATA/1",
    "DomainResource/1",
    "_history/1",
    "_history/_history",
    "_search",
    "_search/Patient",
    "_unknown",
    "metadata/1",
    "Patient/metadata/x",
    ".well-known/smart-configuration",
    "$export",
    "$EVERYTHING",
    "$Graphql",
    "$",
    "$$meta",
    "$meta/1",
    "$meta/$meta",
    "_history/$meta",
    "patient/$meta",
    "Patient/1/2/$meta",
    "Patient/1/_history/1/$meta",
    "Resource/$meta",
    "Patient/a_b/$meta",
    "$" + "a" * 65,
    "Patient/$export",
    "Patient/$match",
    "Patient/1/$validate",
    "Patient/1/$everything/x",
    "Patient/1/$EVERYTHING",
    "Observation/1/$lastn",
    "Group/1/$export",
    "Patient/_search",
    "Patient/1/_search",
    "Patient/1/Observation/_search",
    "Patient/1/_history/",
    "Patient/1/_history/..",
    "Patient/1/_history/_search",
    "Patient/1/_history/*",
    "Patient/1/_history/1/2",
    "Patient/1/_history/1/_history/2",
    "Patient/1/Observation/2",
    "Patient/1/observation",
    "Patient/1/**",
    "Patient/1/Observation/*",
    "Patient/*/Observation",
    "Group/1/Observation",
    "Observation/1/Patient",
    "Patient/1/Observation/2/3",
    "A" * 2049,
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_has_another_reading_is_refused(path: str) -> None:
    """PX-02, PX-03."""
    with pytest.raises(UninterpretableInteraction):
        parse_interaction("GET", path.encode(), b"", (), None)


QUERIES = [
    "code",
    "code=",
    "=1",
    "=",
    "&",
    "code=1&",
    "&code=1",
    "code=1&&date=2",
    "code=1;date=2",
    "code=1;patient=2",
    "code=1#",
    "code=1 2",
    "code=1\tx",
    "code=1\nx",
    "code=é",
    "code=%",
    "code=%4",
    "code=%zz",
    "code=%u0041",
    "code=%ff",
    "code=%c0%af",
    "code=%ed%a0%80",
    "code=%00",
    "code=1%00&patient=2",
    "code=1%0d%0aX",
    "code=%7f",
    "co%00de=1",
    "co%20de=1",
    "code%3D1",
    "code%26patient=1",
    "Code=1",
    "PATIENT=1",
    "?code=1",
    "Patient?code=1",
    "code[]=1",
    "code[$ne]=1",
    "-pageContext=1",
    "code:=1",
    "code:unknown=1",
    "code:mdm=1",
    "patient:mdm=1",
    "code:exact:exact=1",
    ":exact=1",
    "patient.=1",
    ".patient=1",
    "patient..name=1",
    "patient:patient.name=1",
    "subject:Resource.name=1",
    "patient._list=1",
    "patient._filter=1",
    "_has=1",
    "_has:Task=1",
    "_has:Task:focus=1",
    "_has:Task:focus:=1",
    "_has:task:focus:code=1",
    "_has:*:focus:code=1",
    "_has:Resource:focus:code=1",
    "_has:Task:focus:_filter=1",
    "a." * 9 + "b=1",
    "_filter=code eq 1",
    "_filter=code%20eq%201",
    "_filter:x=1",
    "_query=everything",
    "_list=1",
    "_in=Group/1",
    "_graph=1",
    "_contained=true",
    "_containedType=contained",
    "_type=Observation",
    "_method=DELETE",
    "_getpages=1",
    "_cascade=delete",
    "_expunge=true",
    "_include=Observation",
    "_include=Observation:",
    "_include=:subject",
    "_include=observation:subject",
    "_include=Observation:subject:patient",
    "_include=Observation:subject:*",
    "_include=Observation:subject:Patient:x",
    "_include=Observation:subject:Resource",
    "_include=Observation:subject,Observation:performer",
    "_include=Observation.subject",
    "_include=*:*",
    "_include:unknown=Observation:subject",
    "_include:iterate:iterate=Observation:subject",
    "_INCLUDE=*",
    "_Include=*",
    "_include%00=*",
    "_revinclude=Provenance",
    "_revinclude=Resource:target",
    "_sort=patient.name",
    "_sort=subject:Patient.name",
    "_sort=--date",
    "_sort=date,",
    "_sort=_has:Task:focus:status",
    "_sort:desc=date",
    "_unknown=1",
    "patient=Group/1",
    "patient=1,",
    "patient=,1",
    "patient=1,Group/2",
    "patient=http://other.example/fhir/Patient/1",
    "patient=Patient/1/_history/1",
    "patient=Patient/Patient/1",
    "patient=Patient?name=x",
    "patient=1|2",
    "patient=1\\,2",
    "patient=..",
    "patient=urn:uuid:1",
    "patient=" + "a" * 65,
    "patient:Patient=Group/1",
    "subject=1",
    "subject=Patient/1,Group/2",
    "subject=Patient/1,2",
    "subject=http://other.example/fhir/Patient/1",
    "subject=Patient/",
    "subject=patient/1",
    "subject=PATIENT/1",
    "subject:Patient=Device/1",
    "subject:PATIENT=1",
    "subject:PAtient=1",
    "subject:Resource=1",
    "encounter.subject:PATIENT=1",
    "patient:in=Group/1",
    "patient:not-in=Group/1",
    "patient:in=http://ehr.example/fhir/group-1",
    "subject:in=Group/1",
    "subject:not-in=List/1",
    "Patient:in=1",
    "_id:in=List/1",
    "_id:in=http://ehr.example/fhir/1",
    "subject:in=http://ehr.example/fhir/1",
    "performer:in=CareTeam/1",
    "performer:not-in=http://ehr.example/fhir/Group/1",
    "performer:in=http://v.example/s,Group/1",
    "performer:in=LIST/1",
    "encounter.patient:in=Group/1",
    "_has:Task:focus:patient:in=Group/1",
    "encounter._id=a b",
    "&".join(["code=1"] * 257),
    "code=" + "a" * 8188,
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("line", ["GET Observation", "DELETE Observation", "GET Patient/1/Observation"])
def test_a_search_that_cannot_be_checked_is_refused(line: str, query: str) -> None:
    with pytest.raises(UninterpretableInteraction):
        ask(f"{line}?{query}")


@pytest.mark.parametrize("form", [query for query in QUERIES if len(query) < 8000])
def test_a_form_that_cannot_be_checked_is_refused(form: str) -> None:
    with pytest.raises(UninterpretableInteraction):
        ask_by_form("Observation/_search", form)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("A" * 2048, "resource type"),
        ("A" * 2049, "too long"),
        ("Patient//1", "empty or a dot segment"),
        ("Patient/..", "empty or a dot segment"),
    ],
)
def test_a_path_is_refused_for_its_own_reason(path: str, why: str) -> None:
    with pytest.raises(UninterpretableInteraction, match=why):
        ask(f"GET {path}")


@pytest.mark.parametrize(
    "query", ["code=" + "a" * 8187, "&".join(["code=1"] * 256), "a." * 8 + "b=1", "patient=" + "a" * 64]
)
def test_a_query_at_its_limits_is_understood(query: str) -> None:
    assert ask(f"GET Observation?{query}").kind == "search-type"


def test_a_long_form_is_the_callers_business() -> None:
    assert ask_by_form("Observation/_search", "code=" + "a" * 100_000).kind == "search-type"


@pytest.mark.parametrize(
    "line",
    [
        "get Patient/1",
        "Get Patient/1",
        "GET\x00 Patient/1",
        " Patient/1",
        "OPTIONS Patient/1",
        "TRACE Patient/1",
        "CONNECT Patient/1",
        "PROPFIND Patient/1",
        "QUERY Patient",
        "LINK Patient/1",
        "POST Patient/1",
        "POST Patient/1/_history",
        "POST Patient/_history",
        "POST Observation/$lastn",
        "POST metadata",
        "POST _history",
        "POST *",
        "POST Patient/1/Observation",
        "PUT ",
        "PUT metadata",
        "PUT Patient/1/_history/1",
        "PUT Patient/_search?name=a",
        "PATCH ",
        "PATCH Patient/1/_history/1",
        "DELETE ",
        "DELETE ?_type=Patient",
        "DELETE Patient/1/_history",
        "DELETE Patient/1/_history/1",
        "DELETE Patient/1/$everything",
        "DELETE Patient/*",
        "HEAD Patient/_search",
        "PUT Patient",
        "PATCH Patient",
        "DELETE Patient",
        "PUT Patient?",
        "DELETE Patient?_format=json",
        "DELETE Patient?_include=*&name=a",
        "DELETE Patient?_count=1&name=a",
        "DELETE Patient?_sort=name&name=a",
        "DELETE Patient?_type=Patient&name=a",
        "GET Patient/1?_include=Patient:organization",
        "GET Patient/1?name=a",
        "GET Patient/1?_format=json&_format=xml",
        "GET Patient?_format=json&name=a&%5fformat=xml",
        "PUT Patient/1?_format=json&_format=xml",
        "GET Patient/1?_type=Observation",
        "GET Patient/1/_history/1?_count=1",
        "GET Patient/1/_history?_list=1",
        "GET Patient/1/_history?patient=2",
        "GET _history?_type=Patient",
        "GET Patient/1/$everything?_filter=x",
        "GET Patient/1/$everything?patient=2",
        "GET Patient/1/$everything?_type=*",
        "GET Patient/1/$everything?_type=Observation,",
        "GET Patient/1/$everything?_type=Observation,observation",
        "GET Patient/1/$everything?_type=Resource",
        "GET Observation/$lastn?_query=x",
        "GET ?_type=Patient,*",
        "GET ?_type=DomainResource",
        "GET ?_type:not=Patient",
        "GET ?_getpages=a&_filter=b",
        "GET ?_getpages=a&_type=Patient",
        "GET ?_getpagesoffset=20",
        "GET Patient?_getpages=a",
        "GET metadata?_type=Patient",
        "PUT Patient/1?_cascade=delete",
        "PUT Patient/1?identifier=a",
        "DELETE Patient/1?_cascade=delete",
        "DELETE Patient/1?_expunge=true",
        "PATCH Patient/1?name=a",
        "POST Patient?identifier=a",
        "POST Patient?_method=DELETE",
    ],
)
def test_a_method_that_does_not_belong_to_the_path_is_refused(line: str) -> None:
    with pytest.raises(UninterpretableInteraction):
        ask(line)


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        ("POST Patient", {"X_HTTP_Method_Override": "DELETE"}),
        ("GET Patient/1", {"x_http_method_override": "PUT"}),
        ("GET Patient/1", {"X_HTTP_Method": "PUT"}),
        ("GET Patient/1", {"X_Method_Override": "PUT"}),
        ("GET Patient/1", {"X_HTTP_Method_Override": ""}),
        ("GET Patient/1", {"X_Original_URL": "/Patient/2"}),
        ("GET Patient/1", {"X_Rewrite_URL": "/Patient/2"}),
        ("GET Patient", {"Prefer": "respond-async"}),
        ("GET Patient", {"Prefer": "handling=strict, Respond-Async; wait=10"}),
        ("GET Patient", {"Prefer": "respond-async=true"}),
        ("GET Patient", {"Prefer": '"respond-async" = ""'}),
        ("GET Patient", {"If_None_Exist": "identifier=a"}),
        ("PUT Patient/1", {"If_None_Exist": "identifier=a"}),
        ("PUT Patient?identifier=a", {"If_None_Exist": "identifier=a"}),
        ("POST Patient", {"If_None_Exist": ""}),
        ("POST Patient", {"If_None_Exist": "Patient?identifier=a"}),
        ("POST Patient", {"If_None_Exist": "?identifier=a"}),
        ("POST Patient", {"If_None_Exist": "identifier=a&_include=*"}),
        ("POST Patient", {"If_None_Exist": "_filter=a"}),
        ("POST Patient", {"If_None_Exist": "identifier=a b"}),
        ("POST Patient", {"If_None_Exist": "identifier=é"}),
        ("POST Patient", {"If_None_Exist": "_format=json"}),
    ],
)
def test_a_header_that_changes_the_request_unseen_is_refused(line: str, headers: dict[str, str]) -> None:
    with pytest.raises(UninterpretableInteraction):
        ask(line, **headers)


@pytest.mark.parametrize("name", [b"If-None-Exist", b"Content-Type", b"If-None-Match", b"Content-Encoding"])
def test_a_meaningful_header_that_is_repeated_is_refused(name: bytes) -> None:
    headers = [(name, b"identifier=a"), (name.lower(), b"identifier=a")]
    with pytest.raises(UninterpretableInteraction, match="repeated"):
        parse_interaction("POST", b"Patient", b"", headers, None)


def test_preferences_may_be_spread_over_headers() -> None:
    headers = [(b"Prefer", b"handling=strict"), (b"prefer", b"respond-async")]
    with pytest.raises(UninterpretableInteraction, match="asynchronous"):
        parse_interaction("GET", b"Patient", b"", headers, None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Type": ""},
        {"Content_Type": "application/json"},
        {"Content_Type": "multipart/form-data; boundary=x"},
        {"Content_Type": f"{FORM}, application/json"},
        {"Content_Type": f"{FORM}; charset=utf-16"},
        {"Content_Type": f"{FORM}; charset=utf-7"},
        {"Content_Type": f"{FORM}; charset=utf-8; charset=iso-8859-1"},
        {"Content_Type": f"{FORM}; Charset = ISO-8859-1"},
        {"Content_Type": FORM, "Content_Encoding": "gzip"},
        {"Content_Type": FORM, "If_None_Exist": "identifier=a"},
        {"Content_Type": FORM, "Prefer": "respond-async"},
    ],
)
def test_a_search_by_post_is_a_plain_form(headers: dict[str, str]) -> None:
    assert ask("POST Patient/_search", b"name=a", Content_Type=FORM).kind == "search-type"
    with pytest.raises(UninterpretableInteraction):
        ask("POST Patient/_search", b"name=a", **headers)


@pytest.mark.parametrize("query", ["patient=1", "code=1", "_include=*", "_count=1", "_sort=date"])
def test_a_search_by_form_has_nothing_to_search_by_in_its_url(query: str) -> None:
    """EP-22."""
    with pytest.raises(UninterpretableInteraction):
        ask(f"POST Observation/_search?{query}", b"patient=1", Content_Type=FORM)


@pytest.mark.parametrize(
    "path", ["_history/_search", "Patient/1/_search", "/_search", "Group/1/Task/_search", "a/_search"]
)
def test_a_form_posted_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(UninterpretableInteraction):
        ask_by_form(path, "name=a")


def test_a_form_and_its_url_do_not_ask_for_two_formats() -> None:
    with pytest.raises(UninterpretableInteraction, match="_format"):
        ask("POST Patient/_search?_format=json", b"_format=xml", Content_Type=FORM)


@pytest.mark.parametrize("path", ["", "_search", "Patient/_search"])
def test_a_body_that_decides_must_have_been_read(path: str) -> None:
    with pytest.raises(UninterpretableInteraction, match="not read"):
        ask(f"POST {path}", None, Content_Type=FORM)


@pytest.mark.parametrize(
    "line",
    ["GET Canary/../x", "GET canary", "GET Patient/1?canary", "GET Patient?_canary=1", "GET Task?code=canary%zz"],
)
def test_a_refusal_does_not_repeat_the_request(line: str) -> None:
    with pytest.raises(UninterpretableInteraction) as refused:
        ask(line)
    assert "canary" not in f"{refused.value} {refused.value.detail} {refused.value.public}".lower()


def test_the_tables_of_this_file_are_not_empty() -> None:
    assert len(PATHS) + len(QUERIES) > 200
    assert len(PATHS) == len(set(PATHS))
    assert len(QUERIES) == len(set(QUERIES))


def test_a_page_of_a_server_is_not_asked_for_by_form() -> None:
    """PX-07: there its parameters would be those of a search, which has no such parameter."""
    with pytest.raises(UninterpretableInteraction):
        ask_by_form("_search", "_getpages=abc")
