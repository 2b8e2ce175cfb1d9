"""The tables that say whose a resource is, held against what FHIR R4 defines."""

import pytest

from broker.compartment import _BESIDE_OTHERS, _BY_PATIENT, _BY_SUBJECT, _IN_COMPARTMENT
from broker.membership import _ABOUT, _INVOLVED, _SHARED
from tests.definitions.r4 import COMPARTMENT, NAMING_PATIENTS, PARAMETERS, elements, types_with

FOR_OTHERS = {"Group", "Patient", "Person"}
"""Types that the compartment has for a member or a link: they are about the others that they name, too."""
ABOUT_SEVERAL = {"Account", "Appointment", "AuditEvent", "Contract", "Person", "Provenance"}
"""Their `patient` looks at references of which there may be several, so what is found may be about others, too."""
OUTSIDE = {"GuidanceResponse", "Task"}
"""Types with `patient` that are in no patient's compartment, so that what is found could not be checked."""
_SELDOM = """
AppointmentResponse Basic BodyStructure ChargeItem ClaimResponse Communication CommunicationRequest
CoverageEligibilityRequest CoverageEligibilityResponse DetectedIssue DocumentManifest EnrollmentRequest
ImmunizationEvaluation ImmunizationRecommendation Invoice MeasureReport MolecularSequence RequestGroup
ResearchSubject SupplyDelivery VisionPrescription
"""
SELDOM = set(_SELDOM.split())
"""Types that few EHRs have: one that does not know the parameter may ignore it. They are searched by compartment."""
OTHER_SUBJECTS = {type_ for type_ in types_with("subject") if type_.startswith("MedicinalProduct")}
"""Types whose `subject` is no patient."""


def in_compartment_by(type_: str) -> set[str]:
    """Return the elements by which a resource of this type is in a patient's compartment."""
    return set().union(*(elements(type_, parameter) for parameter in COMPARTMENT[type_]))


def test_the_types_of_the_compartment_are_those_of_the_definition() -> None:
    """PX-14."""
    assert set(COMPARTMENT) - FOR_OTHERS == _IN_COMPARTMENT


def test_a_type_can_be_shown_to_be_a_patients_if_the_compartment_has_it() -> None:
    """PX-14: and a Device, which is in none, where it says whose it is."""
    assert set(_ABOUT) == _IN_COMPARTMENT | {"Device"}
    assert set(_INVOLVED) <= set(_ABOUT)


@pytest.mark.parametrize("type_", sorted(_IN_COMPARTMENT))
def test_a_resource_is_a_patients_by_the_elements_of_the_definition(type_: str) -> None:
    """PX-14."""
    about, involved = _ABOUT[type_].split(), _INVOLVED.get(type_, "").split()

    assert {*about, *involved} == in_compartment_by(type_)
    assert len({*about, *involved}) == len([*about, *involved])


@pytest.mark.parametrize("type_", sorted(set(_ABOUT) & types_with("patient")))
def test_whom_a_resource_is_about_is_who_its_parameter_patient_looks_at(type_: str) -> None:
    """PX-14."""
    assert set(_ABOUT[type_].split()) == elements(type_, "patient")


@pytest.mark.parametrize("type_", sorted(_IN_COMPARTMENT))
def test_a_path_binds_where_the_compartment_is_defined_by_one_reference(type_: str) -> None:
    """PX-14: by a second one, or by a list of them, it holds what is about another patient."""
    is_one = len(in_compartment_by(type_)) == 1
    is_list = any(PARAMETERS[type_][parameter]["repeats"] for parameter in COMPARTMENT[type_])

    assert (type_ in _BESIDE_OTHERS) is (is_list or not is_one)


def test_no_type_holds_others_without_being_in_the_compartment() -> None:
    assert _BESIDE_OTHERS <= _IN_COMPARTMENT


def test_patient_binds_the_types_that_define_it_but_those_that_are_left_out_with_a_reason() -> None:
    """PX-14."""
    assert types_with("patient") - ABOUT_SEVERAL - OUTSIDE - SELDOM == _BY_PATIENT
    assert {type_ for type_ in types_with("patient") if PARAMETERS[type_]["patient"]["repeats"]} == ABOUT_SEVERAL
    assert not OUTSIDE & _IN_COMPARTMENT
    assert SELDOM < _IN_COMPARTMENT


def test_patient_refers_to_nothing_but_patients_wherever_it_is_defined() -> None:
    """PX-14: so an id without a type is a patient's."""
    defined = [PARAMETERS[type_]["patient"] for type_ in types_with("patient")]
    assert {(each["type"], each["target"]) for each in defined} == {("reference", "Patient")}


def test_subject_binds_where_it_looks_at_what_patient_looks_at() -> None:
    """PX-14: of the types that are searched by patient at all."""
    alike = {
        type_
        for type_ in types_with("subject") & types_with("patient")
        if elements(type_, "subject") == elements(type_, "patient")
    }

    assert alike & _BY_PATIENT == _BY_SUBJECT
    assert types_with("subject") - alike == OTHER_SUBJECTS | {"AdverseEvent", "SupplyRequest"}


def test_what_is_nobodys_cannot_refer_to_a_patient() -> None:
    """PX-14."""
    assert not _SHARED & NAMING_PATIENTS
    assert not _SHARED & set(COMPARTMENT)
