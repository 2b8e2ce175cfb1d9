"""Patients as rows of a list, and the search a person at a desk would make."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.oauth.users import display_name

MOST = 25
"""Rows of one page."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a list says about one patient."""

    id: str
    name: str
    birth_date: str
    gender: str
    mrn: str


def found(patients: Iterable[Mapping[str, Any]], query: str) -> list[Mapping[str, Any]]:
    """Return the patients in whose name, birth date, MRN or id every word of the query begins a word."""
    words = query.casefold().split()
    return [patient for patient in patients if all(_matches(patient, word) for word in words)]


def row(patient: Mapping[str, Any]) -> Row:
    """Return what a list says about a patient."""
    return Row(
        patient["id"],
        display_name(patient),
        patient.get("birthDate", ""),
        patient.get("gender", ""),
        record_number(patient),
    )


def record_number(patient: Mapping[str, Any]) -> str:
    """Return the medical record number: the first identifier."""
    return next((str(identifier.get("value", "")) for identifier in patient.get("identifier", ())), "")


def _matches(patient: Mapping[str, Any], word: str) -> bool:
    texts = [*display_name(patient).split(), patient.get("birthDate", ""), record_number(patient), patient["id"]]
    return any(text.casefold().startswith(word) for text in texts)
