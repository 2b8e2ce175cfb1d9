"""The hospital, its clinics and the people who work there."""

from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from sandbox.population.elements import HL7, Resource, coding, concept, meta
from sandbox.population.ids import new_id, npi
from sandbox.population.people import CITIES

_OPENED = datetime(2019, 1, 7, 8, tzinfo=UTC)
_ORGANIZATIONS = ("Lakeside University Hospital", "Lakeside Family Medicine", "Lakeside Heart Center")
_CLINICIANS = (
    ("Rebecca", "Lindqvist"),
    ("Anil", "Deshpande"),
    ("Naomi", "Feldman"),
    ("Patrick", "Oyelaran"),
    ("Sofia", "Marchetti"),
    ("Wei", "Zhang"),
)


@dataclass(frozen=True, slots=True)
class Practice:
    """Who treats the patients, and where."""

    organizations: tuple[Resource, ...]
    practitioners: tuple[Resource, ...]


def build_practice(random: Random) -> Practice:
    """Return the fixed staff, with seeded ids."""
    organizations = tuple(_organization(random, name) for name in _ORGANIZATIONS)
    return Practice(organizations, tuple(_practitioner(random, *name) for name in _CLINICIANS))


def _organization(random: Random, name: str) -> Resource:
    city, state, postal_code = CITIES[0]
    return {
        "resourceType": "Organization",
        "id": new_id(random),
        "meta": meta("us-core-organization", _OPENED),
        "identifier": [npi(random)],
        "active": True,
        "type": [concept(coding(f"{HL7}/organization-type", "prov", "Healthcare Provider"))],
        "name": name,
        "telecom": [{"system": "phone", "value": "608-555-0100", "use": "work"}],
        "address": [{"line": ["1 Lakeside Plaza"], "city": city, "state": state, "postalCode": postal_code}],
    }


def _practitioner(random: Random, given: str, family: str) -> Resource:
    name = {"use": "official", "text": f"{given} {family}, MD", "family": family, "given": [given], "suffix": ["MD"]}
    return {
        "resourceType": "Practitioner",
        "id": new_id(random),
        "meta": meta("us-core-practitioner", _OPENED),
        "identifier": [npi(random)],
        "active": True,
        "name": [name],
        "telecom": [{"system": "email", "value": f"{given}.{family}@lakeside.example".lower(), "use": "work"}],
    }
