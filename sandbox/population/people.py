"""Who the patients are: a small fixed cast for demonstrations, then a seeded crowd. All of them are invented."""

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from sandbox.population.codes import DIABETES, HYPERLIPIDEMIA, HYPERTENSION, HYPOTHYROIDISM, PROBLEMS
from sandbox.population.elements import years_between

TODAY = date(2026, 11, 1)
"""The day the charts were written up to. Fixed, so that the same seed gives the same bytes on any day."""


@dataclass(frozen=True, slots=True)
class Person:
    """Someone with a chart."""

    given: str
    family: str
    gender: str
    birth_date: date
    ancestry: str
    """A key of `ANCESTRIES`."""
    problems: frozenset[str]
    """SNOMED codes of the person's conditions."""

    @property
    def name(self) -> str:
        """As it is read aloud."""
        return f"{self.given} {self.family}"

    @property
    def age(self) -> int:
        """In whole years."""
        return years_between(self.birth_date, TODAY)


CAST = (
    Person("Amy", "Shaw", "female", date(1987, 2, 20), "white", frozenset({"195967001"})),
    Person("Camila", "Lopez", "female", date(1979, 9, 12), "hispanic", frozenset({DIABETES, HYPERTENSION})),
    Person("Theo", "Okafor", "male", date(1958, 6, 3), "black", frozenset({HYPERTENSION, HYPERLIPIDEMIA})),
    Person("Ingrid", "Halvorsen", "female", date(1946, 11, 27), "white", frozenset({"49436004", HYPOTHYROIDISM})),
    Person("Mateo", "Rivera", "male", date(2017, 4, 8), "hispanic", frozenset({"367498001"})),
    Person("Mei", "Tanaka", "female", date(1994, 1, 30), "asian", frozenset()),
    Person("Samuel", "Adeyemi", "male", date(1971, 8, 16), "black", frozenset({DIABETES, HYPERLIPIDEMIA})),
    Person("June", "Harrow", "female", date(2003, 5, 5), "white", frozenset({"370143000"})),
)

ANCESTRIES = {
    "white": (("2106-3", "White"), ("2186-5", "Not Hispanic or Latino")),
    "black": (("2054-5", "Black or African American"), ("2186-5", "Not Hispanic or Latino")),
    "asian": (("2028-9", "Asian"), ("2186-5", "Not Hispanic or Latino")),
    "hispanic": (("2106-3", "White"), ("2135-2", "Hispanic or Latino")),
}
"""OMB race and ethnicity, each a code of the CDC Race and Ethnicity code system and its display."""

GIVEN = {
    "female": "Alice Beatriz Chloe Dalia Elena Fatima Grace Hana Iris Jada Kira Leila Maya Nadia Olive Priya Rosa Tess",
    "male": "Aaron Bruno Caleb Diego Elias Felix Gabriel Hugo Isaac Jonah Kenji Liam Marcus Nolan Omar Pablo Ravi",
}
FAMILY = (
    "Abbott Barros Castillo Delgado Ellison Fischer Grant Hassan Ibarra Jensen Kaplan Larsen Mensah Nakamura "
    "Osei Pereira Quigley Rahman Santos Thornton Underhill Vasquez Whitaker Yilmaz Zielinski"
)
STREETS = ("Alder Court", "Birchwood Avenue", "Cedar Lane", "Dogwood Drive", "Elm Street", "Foxglove Road", "Grove Way")
CITIES = (
    ("Madison", "WI", "53703"),
    ("Middleton", "WI", "53562"),
    ("Verona", "WI", "53593"),
    ("Monona", "WI", "53716"),
)


def person(random: Random, number: int) -> Person:
    """Return the `number`th patient: of the cast while it lasts, then of the crowd."""
    if number < len(CAST):
        return CAST[number]
    gender = random.choice(("female", "male"))
    birth_date = TODAY - timedelta(days=random.randint(2 * 366, 92 * 365))
    age = years_between(birth_date, TODAY)
    return Person(
        random.choice(GIVEN[gender].split()),
        random.choice(FAMILY.split()),
        gender,
        birth_date,
        random.choice(tuple(ANCESTRIES)),
        frozenset(
            problem.snomed[0]
            for problem in PROBLEMS
            if problem.ages[0] <= age <= problem.ages[1] and random.random() < problem.prevalence
        ),
    )
