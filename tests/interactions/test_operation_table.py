"""The operations that are known, row by row, as their definitions say (SC-02)."""

import pytest

from broker.interactions.operations import OPERATIONS, find_operation, is_defined

TABLE = """
$everything Patient | type instance | GET POST | r | rs | _count _since _type end start | |
$everything Encounter | instance | GET POST | r | rs | _count _since _type | |
$lastn Observation | type | GET | rs | | | |
$docref DocumentReference | type | GET POST | rs | | end on-demand patient profile start type | type |
$find List | type | GET POST | rs | | name patient | |
$summary Patient | type instance | GET POST | r | rs | identifier profile | |
$document Composition | instance | GET POST | r | r | graph | |
$match Patient | type | POST | rs | | count onlyCertainMatches | | resource
$validate * | type instance | POST | rs | | mode profile | | resource
$meta * | system type | GET POST | s | | | |
$meta * | instance | GET POST | r | | | |
$expand ValueSet | type instance | GET POST | rs | | activeOnly check-system-version context contextDirection
  count date designation displayLanguage exclude-system excludeNested excludeNotForUI excludePostCoordinated
  filter force-system-version includeDefinition includeDesignations offset system-version url valueSetVersion | |
  valueSet
$validate-code ValueSet | type instance | GET POST | rs | | abstract code context date display displayLanguage
  system systemVersion url valueSetVersion | codeableConcept coding | valueSet
$validate-code CodeSystem | type instance | GET POST | rs | | abstract code date display displayLanguage url
  version | codeableConcept coding | codeSystem
$lookup CodeSystem | type | GET POST | rs | | code date displayLanguage property system version | coding |
$subsumes CodeSystem | type instance | GET POST | rs | | codeA codeB system version | codingA codingB |
$translate ConceptMap | type instance | GET POST | rs | | code conceptMapVersion reverse source system target
  targetsystem url version | codeableConcept coding | conceptMap
"""
"""Name, type; where and how it is asked for; letters on the type, on others; parameters, structures, resources."""
ROWS = [
    tuple(tuple(cell.split()) for cell in line.split("|")) for line in TABLE.replace("\n  ", " ").strip().splitlines()
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join((*row[0], *row[1])))
def test_an_operation_is_known_as_it_is_defined(row: tuple[tuple[str, ...], ...]) -> None:
    """SC-02."""
    (name, type_), levels, methods, needs, of_others, *listed = row
    for level in levels:
        for method in methods:
            found = find_operation(name, type_, level, method)
            assert found is not None
            assert (found.levels, found.methods) == (frozenset(levels), frozenset(methods))
            assert ((found.needs,), found.needs_of_others) == (needs, "".join(of_others))
            assert [found.parameters, found.structures, found.resources] == [set(names) for names in listed]


def test_no_other_operation_is_known() -> None:
    """SC-02."""
    assert [(row.name, row.type) for row in OPERATIONS] == [row[0] for row in ROWS]
    assert not is_defined("$everything", "Practitioner")
    assert is_defined("$meta", "Practitioner")


def test_what_confines_an_operation_to_one_patient_is_said_by_its_definition() -> None:
    """PX-14."""
    of = {(row.name, row.type, level): row for row in OPERATIONS for level in row.levels}
    assert {key for key, row in of.items() if row.about_patient} == {
        ("$everything", "Patient", "type"),
        ("$everything", "Patient", "instance"),
        ("$summary", "Patient", "type"),
        ("$summary", "Patient", "instance"),
        ("$meta", "*", "instance"),
    }
    assert {(key[0], row.bound_by) for key, row in of.items() if row.bound_by} == {
        ("$docref", "patient"),
        ("$find", "patient"),
    }
    assert {key[0] for key, row in of.items() if row.is_search} == {"$lastn"}
