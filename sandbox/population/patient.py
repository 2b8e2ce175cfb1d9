"""The Patient resource."""

from datetime import UTC, datetime
from random import Random

from sandbox.population.elements import HL7, US_CORE, Resource, coding, meta, reference
from sandbox.population.ids import new_id
from sandbox.population.people import ANCESTRIES, CITIES, STREETS, Person
from sandbox.population.practice import Practice

_REGISTERED = datetime(2020, 3, 2, 15, tzinfo=UTC)
_RACE_SYSTEM = "urn:oid:2.16.840.1.113883.6.238"


def build_patient(random: Random, person: Person, number: int, practice: Practice) -> Resource:
    """Return a US Core Patient; `number` makes the medical record number, which is unique."""
    race, ethnicity = ANCESTRIES[person.ancestry]
    city, state, postal_code = random.choice(CITIES)
    street = f"{random.randint(10, 999)} {random.choice(STREETS)}"
    email = f"{person.given}.{person.family}{number}@example.com".lower()
    clinician = random.choice(practice.practitioners)
    return {
        "resourceType": "Patient",
        "id": new_id(random),
        "meta": meta("us-core-patient", _REGISTERED),
        "extension": [
            _omb_extension("us-core-race", race),
            _omb_extension("us-core-ethnicity", ethnicity),
            {"url": f"{US_CORE}/us-core-birthsex", "valueCode": person.gender[0].upper()},
        ],
        "identifier": [_record_number(number)],
        "active": True,
        "name": [{"use": "official", "text": person.name, "family": person.family, "given": [person.given]}],
        "telecom": [
            {"system": "phone", "value": f"608-555-{100 + number % 100:04}", "use": "mobile"},
            {"system": "email", "value": email},
        ],
        "gender": person.gender,
        "birthDate": person.birth_date.isoformat(),
        "address": [
            {"use": "home", "line": [street], "city": city, "state": state, "postalCode": postal_code, "country": "US"}
        ],
        "generalPractitioner": [reference(clinician, clinician["name"][0]["text"])],
        "managingOrganization": reference(practice.organizations[0], practice.organizations[0]["name"]),
    }


def _record_number(number: int) -> Resource:
    kind = coding(f"{HL7}/v2-0203", "MR", "Medical record number")
    system = "urn:oid:1.2.840.114350.1.13.0.1.7.5.737384.14"
    return {"use": "usual", "type": {"coding": [kind]}, "system": system, "value": f"{200001 + number}"}


def _omb_extension(name: str, category: tuple[str, str]) -> Resource:
    code, display = category
    return {
        "url": f"{US_CORE}/{name}",
        "extension": [
            {"url": "ombCategory", "valueCoding": coding(_RACE_SYSTEM, code, display)},
            {"url": "text", "valueString": display},
        ],
    }
