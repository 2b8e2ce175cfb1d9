"""What words mean: each in its canonical form, malformed ones refused or worth nothing."""

import pytest

from broker.errors import InvalidScope
from broker.scopes import ResourceScope, Scopes
from broker.scopes.measure import MOST_FILTERS, MOST_RESOURCE_SCOPES

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"


@pytest.mark.parametrize(
    ("word", "scope"),
    [
        ("patient/Observation.rs", ResourceScope("patient", "Observation", "rs")),
        ("user/*.cruds", ResourceScope("user", "*", "cruds")),
        ("system/Patient.s", ResourceScope("system", "Patient", "s")),
        ("patient/Observation.read", ResourceScope("patient", "Observation", "rs")),
        ("patient/Observation.write", ResourceScope("patient", "Observation", "cud")),
        ("patient/Observation.*", ResourceScope("patient", "Observation", "cruds")),
        ("user/*.*", ResourceScope("user", "*", "cruds")),
        (
            f"patient/Observation.rs?category={CATEGORY}",
            ResourceScope("patient", "Observation", "rs", (("category", CATEGORY),)),
        ),
        (
            "patient/Observation.s?code=a%26b%3Dc&category=x%20y",
            ResourceScope("patient", "Observation", "s", (("category", "x y"), ("code", "a&b=c"))),
        ),
        ("user/Task.r?a=1&a=1&a=2", ResourceScope("user", "Task", "r", (("a", "1"), ("a", "2")))),
        (
            "patient/Condition.r?code:in=http://v.example/s",
            ResourceScope("patient", "Condition", "r", (("code:in", "http://v.example/s"),)),
        ),
        (
            "patient/Group.r?patient.birthdate=1990",
            ResourceScope("patient", "Group", "r", (("patient.birthdate", "1990"),)),
        ),
        ("http://smarthealthit.org/fhir/scopes/patient/*.r", ResourceScope("patient", "*", "r")),
    ],
)
@pytest.mark.parametrize("lenient", [False, True])
def test_a_resource_scope_is_read(word: str, scope: ResourceScope, *, lenient: bool) -> None:
    """SC-01, SC-03, SC-05, SC-06, SC-14."""
    assert Scopes.parse(word, lenient=lenient) == Scopes(frozenset({scope}))


MALFORMED = [
    "patient/Observation.dus",
    "patient/Observation.sr",
    "patient/Observation.rr",
    "patient/Observation.",
    "patient/Observation",
    "patient/.rs",
    "patient/",
    "patient/..",
    "patient/*",
    "patient/*.**",
    "patient/Observation.x",
    "patient/Observation.readx",
    "patient/Observation.rread",
    "patient/Observation.RS",
    "patient/observation.rs",
    "patient/Observation2.rs",
    "patient/Obs*.rs",
    "patient/*Observation.rs",
    "patient/Observation.rs.rs",
    "patient//Observation.rs",
    "patient/Observation/1.rs",
    "Patient/Observation.rs",
    "USER/Observation.rs",
    "system/Patient.read?category=x",
    "system/Patient.*?category=x",
    "patient/Observation.rs?",
    "patient/Observation.rs?category",
    "patient/Observation.rs?category=",
    "patient/Observation.rs?=x",
    "patient/Observation.rs?a=1&",
    "patient/Observation.rs?&a=1",
    "patient/Observation.rs?a=1&&b=2",
    "patient/Observation.rs?a=b=c",
    "patient/Observation.rs?a=%zz",
    "patient/Observation.rs?a=%4",
    "patient/Observation.rs?a=%ff",
    "patient/Observation.rs?a=%00",
    "patient/Observation.rs?a=x%0ay",
    "patient/Observation.rs?a=x+y",
    "patient/Observation.rs?a%20b=x",
    "patient/Observation.rs?1=x",
    "patient/Observation.rs#x",
    "patient/Observation.rs\\",
    'patient/"Observation".rs',
    "patient/Observation.rs\n",
    "patient/Observation.rs\tpatient/Patient.rs",
    "patient/Observátion.rs",
    "launch/",
    "launch/Patient",
    "launch/patient?role=",
    "launch/patient?role=a&role=b",
    "launch/patient?x=y",
    "launch/patient/1",
    "Launch/patient",
    "http://smarthealthit.org/fhir/scopes/patient/Observation.dus",
    "http://smarthealthit.org/fhir/scopes/launch/Patient",
    "open\x00id",
    "ünbekannt",
]


@pytest.mark.parametrize("word", MALFORMED)
def test_a_malformed_word_is_refused_by_name_when_an_app_wrote_it(word: str) -> None:
    """SC-01, SC-10."""
    with pytest.raises(InvalidScope) as refused:
        Scopes.parse(f"openid {word}")
    assert "malformed scope" in refused.value.detail
    assert repr(word)[1:15] in refused.value.detail


@pytest.mark.parametrize("word", [word for word in MALFORMED if "\t" not in word and "\n" not in word])
def test_a_malformed_word_grants_nothing_when_an_ehr_answered_it(word: str) -> None:
    """SC-16, NC-06."""
    assert Scopes.parse(f"openid {word}", lenient=True) == Scopes.parse("openid")


def test_a_long_malformed_word_is_not_repeated_in_full() -> None:
    with pytest.raises(InvalidScope) as refused:
        Scopes.parse("patient/" + "x" * 5000)
    assert len(refused.value.detail) < 150


@pytest.mark.parametrize("level", ["patient", "user", "system"])
def test_a_letter_is_covered_at_whichever_level_where_none_is_asked_for(level: str) -> None:
    assert Scopes.parse(f"{level}/Observation.r").covers("Observation", "r")


@pytest.mark.parametrize(
    "word",
    [
        "launch",
        "launch/patient",
        "launch/imagingstudy",
        "launch/list?role=https://example.org/med-list-at-home",
        "openid",
        "fhirUser",
        "profile",
        "offline_access",
        "online_access",
        "__profilePhoto.manage",
        "https://ehr.example.org/scopes/profilePhoto.manage",
        "epic.scanning.dmsusername",
        "athena/service/Athenanet.MDP.*",
        "sandbox",
        "Observation.read",
        "*/*.rs",
        "http://smarthealthit.org/fhir/scopes/sandbox",
        "http://openid.net/specs/openid-connect-core-1_0#patient/*.rs",
    ],
)
def test_another_word_is_kept_as_it_is_and_opens_no_data(word: str) -> None:
    """AL-19, SC-10, SC-11, SC-12, SC-13."""
    scopes = Scopes.parse(word)
    assert scopes == Scopes(others=frozenset({word}))
    assert str(scopes) == word
    assert not scopes.covers("Observation", "r")


@pytest.mark.parametrize(
    ("uri", "short"),
    [
        ("http://smarthealthit.org/fhir/scopes/launch", "launch"),
        ("http://smarthealthit.org/fhir/scopes/launch/patient", "launch/patient"),
        ("http://smarthealthit.org/fhir/scopes/fhirUser", "fhirUser"),
        ("http://smarthealthit.org/fhir/scopes/offline_access", "offline_access"),
        ("http://smarthealthit.org/fhir/scopes/online_access", "online_access"),
        ("http://openid.net/specs/openid-connect-core-1_0#openid", "openid"),
        ("http://openid.net/specs/openid-connect-core-1_0#profile", "profile"),
        ("http://openid.net/specs/openid-connect-core-1_0#email", "email"),
        ("http://openid.net/specs/openid-connect-core-1_0#address", "address"),
        ("http://openid.net/specs/openid-connect-core-1_0#phone", "phone"),
        ("http://openid.net/specs/openid-connect-core-1_0#offline_access", "offline_access"),
    ],
)
def test_a_uri_form_is_its_short_form(uri: str, short: str) -> None:
    """SC-14."""
    assert Scopes.parse(uri) == Scopes.parse(short)
    assert Scopes.parse(f"{uri} x").intersection(Scopes.parse(short)) == Scopes.parse(short)


@pytest.mark.parametrize(
    ("answered", "meant"),
    [
        ("patient/Observation.Read patient/Observation.read", "patient/Observation.rs"),
        ("patient/Observation.WRITE", "patient/Observation.cud"),
        ("patient/Patient.read  patient/Patient.read ", "patient/Patient.rs"),
        (" openid\tfhirUser\n", "fhirUser openid"),
        ("patient/Patient.r patient/Patient.s", "patient/Patient.rs"),
        ("http://smarthealthit.org/fhir/scopes/patient/Patient.Read", "patient/Patient.rs"),
        ("patient/Patient.RS", ""),
        ("patient/Observation.s?code=x.READ", "patient/Observation.s?code=x.READ"),
        ("epic.x.Read", "epic.x.Read"),
        ("", ""),
    ],
)
def test_what_ehrs_really_answer_is_understood_and_not_widened(answered: str, meant: str) -> None:
    """SC-16, OA-02, NC-06."""
    assert str(Scopes.parse(answered, lenient=True)) == meant


@pytest.mark.parametrize("word", ["patient/Observation.Read", "patient/Observation.WRITE"])
def test_a_shouted_v1_verb_is_an_error_when_an_app_wrote_it(word: str) -> None:
    """SC-16: case counts, but where an EHR answers."""
    with pytest.raises(InvalidScope):
        Scopes.parse(word)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("   ", ""),
        ("patient/Observation.s patient/Observation.r", "patient/Observation.rs"),
        ("user/Patient.write user/Patient.read", "user/Patient.cruds"),
        ("patient/*.rs patient/Observation.rs", "patient/*.rs"),
        ("patient/*.rs patient/Observation.crs", "patient/*.rs patient/Observation.c"),
        ("user/*.rs patient/Observation.rs", "patient/Observation.rs user/*.rs"),
        ("patient/Observation.rs patient/Observation.rs?category=x", "patient/Observation.rs"),
        (
            "patient/Observation.r patient/Observation.rs?category=x",
            "patient/Observation.r patient/Observation.s?category=x",
        ),
        ("patient/*.rs?a=1 patient/Observation.r?a=1&b=2", "patient/*.rs?a=1"),
        ("patient/Observation.rs?b=2&a=1", "patient/Observation.rs?a=1&b=2"),
        ("openid launch patient/Patient.r openid", "launch openid patient/Patient.r"),
        (f"patient/Observation.rs?category={CATEGORY}", f"patient/Observation.rs?category={CATEGORY}"),
        ("patient/Task.r?a=%c3%a9%20%26%3d%2b%25%22%5c", "patient/Task.r?a=%C3%A9%20%26%3D%2B%25%22%5C"),
    ],
)
def test_the_canonical_text_is_sorted_merged_and_shortest(text: str, canonical: str) -> None:
    """SC-07."""
    assert str(Scopes.parse(text)) == canonical
    assert Scopes.parse(canonical) == Scopes.parse(text)


@pytest.mark.parametrize(
    ("text", "type_", "letter", "parameters", "levels", "covered"),
    [
        ("patient/Observation.rs", "Observation", "r", (), ("patient",), True),
        ("patient/Observation.rs", "Observation", "r", (), ("user", "system"), False),
        ("patient/Observation.rs", "Observation", "r", (), (), False),
        ("patient/Observation.rs", "Observation", "u", (), ("patient",), False),
        ("patient/Observation.rs", "Observation", "", (), ("patient",), False),
        ("patient/Observation.rs", "Observation", "rs", (), ("patient",), False),
        ("patient/Observation.rs", "Observatio", "r", (), ("patient",), False),
        ("patient/Observation.rs", "observation", "r", (), ("patient",), False),
        ("patient/Observation.rs", "*", "r", (), ("patient",), False),
        ("patient/*.rs", "*", "r", (), ("patient",), True),
        ("patient/*.rs", "Unheard", "s", (), ("patient",), True),
        ("user/*.rs patient/*.cud", "Patient", "c", (), ("user",), False),
        ("patient/Observation.s?a=1", "Observation", "s", (), ("patient",), False),
        ("patient/Observation.s?a=1", "Observation", "s", (("a", "1"),), ("patient",), True),
        ("patient/Observation.s?a=1", "Observation", "s", (("b", "2"), ("a", "1")), ("patient",), True),
        ("patient/Observation.s?a=1", "Observation", "s", (("a", "1,2"),), ("patient",), False),
        ("patient/Observation.s?a=1", "Observation", "s", (("a:not", "1"),), ("patient",), False),
        ("patient/Observation.s?a=1", "Observation", "s", (("A", "1"),), ("patient",), False),
        ("patient/Observation.s?a=1&a=2", "Observation", "s", (("a", "1"),), ("patient",), False),
        ("patient/Observation.r?a=1 patient/Observation.s", "Observation", "r", (), ("patient",), False),
        ("launch openid", "Patient", "r", (), ("patient",), False),
        ("", "Patient", "r", (), ("patient", "user", "system"), False),
    ],
)
def test_a_scope_covers_what_it_says_and_nothing_else(
    text: str,
    type_: str,
    letter: str,
    parameters: tuple[tuple[str, str], ...],
    levels: tuple[str, ...],
    *,
    covered: bool,
) -> None:
    """SC-02, SC-05, SC-06, SC-08."""
    assert Scopes.parse(text).covers(type_, letter, parameters=parameters, levels=levels) is covered


def test_no_scopes_are_falsy_and_any_scope_is_not() -> None:
    assert not Scopes()
    assert Scopes.parse("openid")
    assert Scopes.parse("patient/Patient.r")


def _many(count: int, parameter: str = "code") -> str:
    return " ".join(f"patient/Observation.r?{parameter}={number}" for number in range(count))


def _types(count: int) -> str:
    return " ".join(f"patient/T{chr(65 + number // 26)}{chr(97 + number % 26)}.r" for number in range(count))


def test_more_scopes_than_can_be_compared_are_refused() -> None:
    assert len(Scopes.parse(_types(MOST_RESOURCE_SCOPES)).resources) == MOST_RESOURCE_SCOPES
    with pytest.raises(InvalidScope, match=r"more than 200 different resource scopes$"):
        Scopes.parse(_types(MOST_RESOURCE_SCOPES + 1))


def test_more_filters_for_one_type_than_can_be_compared_are_refused() -> None:
    assert len(Scopes.parse(_many(MOST_FILTERS)).resources) == MOST_FILTERS
    with pytest.raises(InvalidScope, match=r"more than 16 different filters for one type$"):
        Scopes.parse(_many(MOST_FILTERS + 1))


def test_too_many_scopes_are_too_many_though_one_of_them_says_it_all() -> None:
    with pytest.raises(InvalidScope, match="more than"):
        Scopes.parse(f"user/*.cruds patient/*.cruds system/*.cruds {_types(MOST_RESOURCE_SCOPES)}")


def test_an_ehr_that_answers_too_many_scopes_gives_the_first_of_them() -> None:
    scopes = Scopes.parse(_many(MOST_FILTERS + 1) + " patient/Observation.s?code=0 openid", lenient=True)
    assert len(scopes.resources) == MOST_FILTERS
    assert scopes.covers("Observation", "s", parameters=[("code", "0")])
    assert not scopes.covers("Observation", "r", parameters=[("code", str(MOST_FILTERS))])
    assert scopes.others == {"openid"}
    assert Scopes.parse(str(scopes)) == scopes
    assert len(Scopes.parse(_types(MOST_RESOURCE_SCOPES + 1), lenient=True).resources) == MOST_RESOURCE_SCOPES


def _filtered(*pairs: str) -> str:
    return f"patient/Observation.r?{'&'.join(pairs)}"


@pytest.mark.parametrize(
    ("most", "more", "what"),
    [
        (_filtered(*(f"a{n}=x" for n in range(8))), "&a8=x", "8 search parameters in one scope"),
        (_filtered(*(f"a={n}" for n in range(8))), "&a=8", "8 search parameters in one scope"),
        (_filtered("code=" + "%7E" * 4092 + "~" * 4096), "~", "8192 characters in the search parameters of one scope"),
        (_filtered(f"b={'x' * 4096}", f"c={'x' * 4094}"), "y", "8192 characters in the search parameters of one scope"),
        (_filtered("b=x", "code=" + ",".join("y" * 64)), ",y", "64 alternatives in one value"),
        (_filtered("code=" + "y%5C," * 64 + ",".join("z" * 64)), ",z", "64 alternatives in one value"),
        (" ".join([_filtered("code=1"), *(f"v{n}" for n in range(999))]), " v", "1000 words"),
    ],
    ids=["parameters", "values", "long value", "long values", "alternatives", "escaped commas", "words"],
)
def test_a_scope_says_only_so_much(most: str, more: str, what: str) -> None:
    """SC-05, SC-16: whoever holds it has every search and every answer held against it."""
    scopes = Scopes.parse(most)
    assert Scopes.parse(str(scopes)) == Scopes.parse(most, lenient=True) == scopes
    with pytest.raises(InvalidScope) as refused:
        Scopes.parse(most + more)
    assert (refused.value.detail, refused.value.public) == (f"more than {what}", f"The scope has more than {what}.")
    answered = Scopes.parse(f"openid patient/Patient.r {most}{more} patient/Flag.r", lenient=True)
    assert not answered.covers("Observation", "r", parameters=[("code", "1"), ("b", "x")]) or what == "1000 words"
    assert answered.covers("Patient", "r")
    assert answered.others >= {"openid"}
    assert answered.covers("Flag", "r") is (what != "1000 words")


def test_scopes_that_together_say_too_much_meet_in_none() -> None:
    """SC-05: of what was sealed every part can be read again."""
    one, other = (Scopes.parse(_filtered(*(f"{name}{n}=x" for n in range(5)))) for name in "ab")
    with pytest.raises(InvalidScope, match="more than 8 search parameters"):
        one.intersection(other)
    near = one.intersection(Scopes.parse(_filtered("a0=x", "b0=x", "b1=x", "b2=x")))
    assert Scopes.parse(str(near)) == near


def test_an_intersection_that_explodes_is_refused() -> None:
    one, other = Scopes.parse(_many(9, "a")), Scopes.parse(_many(9, "b"))
    with pytest.raises(InvalidScope, match="more than 16"):
        one.intersection(other)


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("user/Observation.s?code=2 user/*.s?code=1", ((("code", "1"),), (("code", "2"),))),
        ("user/Observation.s system/Observation.s", ((),)),
        ("user/Observation.s?code=1 system/Observation.s?code=1", ((("code", "1"),),)),
        ("user/Observation.r?code=1", ()),
        ("patient/Observation.s?code=1", ()),
        ("user/Condition.s?code=1", ()),
        ("openid", ()),
    ],
)
def test_the_filters_of_an_access_are_those_of_its_scopes(text: str, filters: tuple[object, ...]) -> None:
    """SC-05."""
    assert Scopes.parse(text).filters("Observation", "s", ("user", "system")) == filters
