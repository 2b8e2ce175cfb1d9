"""The people who can sign in. Their passwords are shown on the login page: nothing here is real."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class User:
    """A demo account; `fhir_user` is a relative reference, `sub` the subject of id_tokens."""

    username: str
    password: str
    name: str
    fhir_user: str
    sub: str

    @property
    def own_patient(self) -> str | None:
        """The patient id of a person who signs in about themselves, else None."""
        kind, _, identifier = self.fhir_user.partition("/")
        return identifier if kind == "Patient" else None


def demo_users(population: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> tuple[User, ...]:
    """Return two clinicians and one patient of this population, the first clinician first."""
    people = [*list(population["Practitioner"].values())[:2], next(iter(population["Patient"].values()))]
    accounts = (("doctor", "clinic"), ("colleague", "clinic"), ("patient", "mychart"))
    return tuple(
        User(
            username, password, display_name(person), f"{person['resourceType']}/{person['id']}", f"sandbox-{username}"
        )
        for (username, password), person in zip(accounts, people, strict=True)
    )


def display_name(resource: Mapping[str, Any]) -> str:
    """Return the name of a person resource as people read it, or the id where there is none."""
    name: Mapping[str, Any] = next(iter(resource.get("name", ())), {})
    parts = [*name.get("prefix", ()), *name.get("given", ()), name.get("family", "")]
    return name.get("text") or " ".join(filter(None, parts)) or str(resource["id"])
