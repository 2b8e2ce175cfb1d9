"""Catalogs of imported EHRs: merged, switched, written and read."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.catalog import Catalog, Entry, dump, enable, merge, parse
from broker.errors import ConfigurationError
from broker.listings import Listing

CLINIC = Listing("Endpoint/1", "Good Clinic", "https://clinic.example/r4", "4.0.1")
OTHER = Listing("Endpoint/2", "Other", "https://other.example/r4", None)


def imported(*listings: Listing) -> Catalog:
    entries, _ = merge(Catalog(), listings, profile="epic")
    return Catalog(source="https://lists.example", etag='W/"1"', imported="2026-11-23T00:00:00Z", ehrs=entries)


def test_what_is_imported_is_disabled() -> None:
    """(BR-05)"""
    catalog = imported(CLINIC, OTHER)

    assert [entry.enabled for entry in catalog.ehrs] == [False, False]
    assert catalog.ehrs[0].id.startswith("good-clinic-")


def test_importing_the_same_again_changes_nothing() -> None:
    catalog = enable(imported(CLINIC, OTHER), ["".join(e.id for e in imported(CLINIC).ehrs)], enabled=True)
    entries, difference = merge(catalog, [OTHER, CLINIC], profile="epic")

    assert entries == catalog.ehrs
    assert (difference.added, difference.changed, difference.removed, difference.disabled) == ((), (), (), ())


def test_an_enabled_ehr_whose_address_changed_is_disabled_until_somebody_looks() -> None:
    """What an operator approved was the old address (BR-05, DS-15)."""
    catalog = imported(CLINIC)
    catalog = enable(catalog, [catalog.ehrs[0].id], enabled=True)
    entries, difference = merge(catalog, [replace(CLINIC, fhir_base="https://evil.example/r4")], profile="epic")

    assert (entries[0].id, entries[0].fhir_base) == (catalog.ehrs[0].id, "https://evil.example/r4")
    assert not entries[0].enabled
    assert difference.disabled == (entries[0].id,)
    assert difference.changed == ((catalog.ehrs[0], entries[0]),)


def test_a_new_name_leaves_the_id_and_the_switch_as_they_are() -> None:
    catalog = imported(CLINIC)
    catalog = enable(catalog, [catalog.ehrs[0].id], enabled=True)
    entries, difference = merge(catalog, [replace(CLINIC, name="Better Clinic")], profile="epic")

    assert (entries[0].id, entries[0].name, entries[0].enabled) == (catalog.ehrs[0].id, "Better Clinic", True)
    assert (len(difference.changed), difference.disabled) == (1, ())


def test_what_is_no_longer_listed_is_kept_and_says_so() -> None:
    catalog = imported(CLINIC, OTHER)
    entries, difference = merge(catalog, [CLINIC], profile="epic")
    again, silent = merge(replace(catalog, ehrs=entries), [CLINIC], profile="epic")

    assert {entry.name: entry.listed for entry in entries} == {"Good Clinic": True, "Other": False}
    assert [entry.name for entry in difference.removed] == ["Other"]
    assert (again, silent.removed) == (entries, ())


def test_enabling_an_ehr_that_is_not_there_names_it() -> None:
    with pytest.raises(ConfigurationError, match="no catalog holds nowhere"):
        enable(imported(CLINIC), ["nowhere"], enabled=True)


def test_a_catalog_has_one_ehr_a_line() -> None:
    lines = dump(imported(CLINIC, OTHER)).splitlines()

    assert [line for line in lines if "clinic.example" in line] == [lines[5]]
    assert len(lines) == 9


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("<html>", "not JSON"),
        ("[]", 'no list "ehrs"'),
        ('{"ehrs": [{"id": "x"}]}', "entry 1"),
        ('{"ehrs": [7]}', "entry 1"),
        (dump(imported(CLINIC)).replace("false", '"false"'), "entry 1: a key has a value of the wrong type"),
    ],
)
def test_a_file_that_is_no_catalog_is_refused_by_entry(text: str, cause: str) -> None:
    with pytest.raises(ConfigurationError, match=cause):
        parse(text)


listings = st.builds(
    Listing,
    listed_as=st.sampled_from(["a", "b", "c", "d"]),
    name=st.text(max_size=12),
    fhir_base=st.sampled_from([f"https://{host}.example/r4" for host in "abcd"]),
    fhir_version=st.none(),
)


@given(st.lists(st.lists(listings, max_size=4, unique_by=lambda listing: listing.fhir_base), max_size=4))
def test_no_sequence_of_imports_enables_anything_or_mixes_up_ids(imports: list[list[Listing]]) -> None:
    """An address that is in use is one that an operator saw: imports can only take that away (BR-05)."""
    catalog = Catalog()
    approved: dict[str, str] = {}
    for batch in imports:
        entries, _ = merge(catalog, batch, profile="generic")
        assert len({entry.id for entry in entries}) == len({entry.fhir_base for entry in entries}) == len(entries)
        assert all(approved.get(entry.id) == entry.fhir_base for entry in entries if entry.enabled)
        assert parse(dump(Catalog(ehrs=entries))).ehrs == entries
        catalog = enable(Catalog(ehrs=entries), [entry.id for entry in entries[:2]], enabled=True)
        approved = {entry.id: entry.fhir_base for entry in catalog.ehrs if entry.enabled}


def test_two_ehrs_of_one_name_have_two_ids() -> None:
    first, second = imported(CLINIC, replace(OTHER, name="Good Clinic")).ehrs

    assert isinstance(first, Entry)
    assert first.id != second.id


def test_new_entries_get_the_environment_and_known_ones_keep_theirs() -> None:
    """(EP-02)"""
    catalog = imported(CLINIC)
    entries, _ = merge(catalog, [CLINIC, OTHER], profile="epic", environment="non_production")

    assert {entry.name: entry.environment for entry in entries} == {
        "Good Clinic": "production",
        "Other": "non_production",
    }
