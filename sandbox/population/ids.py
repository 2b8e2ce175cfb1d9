"""Identifiers as an EHR makes them."""

from random import Random
from string import ascii_letters, digits

from sandbox.population.elements import Resource

_ALPHABET = ascii_letters + digits + "-."


def new_id(random: Random) -> str:
    """Return a resource id: opaque, 24 characters, within FHIR's `[A-Za-z0-9-.]{1,64}`."""
    return f"e{''.join(random.choices(_ALPHABET, k=22))}3"


def npi(random: Random) -> Resource:
    """Return a National Provider Identifier whose check digit is right (ISO 7812 with the prefix 80840)."""
    body = f"1{random.randrange(10**8):08}"
    doubled = [int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(f"80840{body}"))]
    check = -sum(number // 10 + number % 10 for number in doubled) % 10
    return {"use": "official", "system": "http://hl7.org/fhir/sid/us-npi", "value": f"{body}{check}"}
