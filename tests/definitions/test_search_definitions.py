"""What the broker takes search parameters and operations for, held against what FHIR R4 defines."""

import pytest

from broker.interactions.operations import OPERATIONS, Operation
from broker.interactions.search import _TARGETS
from broker.interactions.search_names import R4
from broker.token_parameters import _BY_TYPE, _EVERY_TYPE
from tests.definitions.r4 import OPERATIONS as DEFINED
from tests.definitions.r4 import PARAMETERS, SEARCH_NAMES, elements, types_with

OF_TYPES = [(type_, name, paths) for type_, named in _BY_TYPE.items() for name, paths in named.items()]
ELSEWHERE = {"$docref", "$summary"}
"""Operations that US Core and IPS define."""
OF_R4 = [operation for operation in OPERATIONS if operation.name not in ELSEWHERE]


@pytest.mark.parametrize(("type_", "name", "paths"), OF_TYPES)
def test_a_token_is_looked_for_where_its_parameter_looks(type_: str, name: str, paths: str) -> None:
    """SC-05."""
    assert PARAMETERS[type_][name]["type"] == "token"
    assert set(paths.split()) == elements(type_, name)


@pytest.mark.parametrize("name", sorted(set(_EVERY_TYPE) - {"identifier"}))
def test_of_every_type_a_token_is_looked_for_where_its_parameter_looks(name: str) -> None:
    """SC-05."""
    assert PARAMETERS["Resource"][name]["type"] == "token"
    assert {_EVERY_TYPE[name]} == elements("Resource", name)


@pytest.mark.parametrize("type_", sorted(types_with("identifier")))
def test_an_identifier_is_looked_for_where_its_parameter_looks(type_: str) -> None:
    """SC-05: of other types none is found, or one that no search of an EHR's could ask for."""
    paths = _BY_TYPE.get(type_, {}).get("identifier", _EVERY_TYPE["identifier"])

    assert PARAMETERS[type_]["identifier"]["type"] == "token"
    assert set(paths.split()) == elements(type_, "identifier")


@pytest.mark.parametrize(("name", "target"), _TARGETS.items())
def test_a_parameter_with_one_target_has_it_wherever_it_is_defined(name: str, target: str) -> None:
    """SC-02: what a chain or an `_include` by it reaches is of this type."""
    assert {PARAMETERS[type_][name].get("target") for type_ in types_with(name)} == {target}


def test_the_names_of_search_parameters_are_those_of_r4() -> None:
    """PX-07: what is not among them may be a place in the results of another search."""
    assert {name for name in SEARCH_NAMES if not name.startswith("_")} == R4


@pytest.mark.parametrize("operation", OF_R4, ids=lambda operation: f"{operation.type} {operation.name}")
def test_an_operation_is_let_through_with_what_it_is_defined_with_at_most(operation: Operation) -> None:
    """SC-02."""
    defined = DEFINED["Resource" if operation.type == "*" else operation.type][operation.name]

    assert operation.levels <= set(defined["levels"])
    assert operation.parameters | operation.structures | operation.resources <= set(defined["parameters"])
