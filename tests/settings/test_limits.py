"""`[app.limits]` and `[app.access.limits]`: what they say, and what is refused."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from broker.apps import Directory
from broker.interactions import LIMITABLE
from broker.limits import Limits
from tests.settings.files import faults_of, load_text, spoiled

KNOWN = ", ".join(LIMITABLE)
SOMETHING = "Fix: name some, or take the key away"
LAST = 'scopes = "system/Patient.rs"\n'


def test_both_tables_hold_for_the_access_that_has_one_of_its_own(tmp_path: Path) -> None:
    """HB-02."""
    of_app = '[app.limits]\nmax_count = 50\nnetwork = ["10.0.0.128/25", "::ffff:10.0.0.0/121"]'
    of_access = '[app.access.limits]\nmax_count = 100\nread_only = true\ntypes = ["Patient"]\ninteractions = ["$match"]'
    text = spoiled("handle_lifetime = 60", of_app).removesuffix(LAST) + LAST + of_access

    app = Directory(load_text(tmp_path, text)).app("nightly")

    assert app is not None
    assert app.allowance("epic", "backend").limits == Limits(
        types=frozenset({"Patient"}),
        interactions=frozenset({"$match"}),
        max_count=50,
        read_only=True,
        network=(ip_network("10.0.0.0/24"),),
    )


def test_an_app_without_them_has_no_limits(tmp_path: Path) -> None:
    app = Directory(load_text(tmp_path, spoiled("handle_lifetime = 60", ""))).app("nightly")

    assert app is not None
    assert app.allowance("epic", "backend").limits is None


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ("", ": limits nothing. Fix: name a limit, or take the table away"),
        ("read_only = false", ": limits nothing. Fix: name a limit, or take the table away"),
        ("types = []", f": types is an empty list, which allows nothing. {SOMETHING}"),
        ("network = []", f": network is an empty list, which allows nothing. {SOMETHING}"),
        ('types = ["Patient", "observation"]', ".types[2]: must be a FHIR type, such as Observation"),
        (
            'interactions = ["read", "batch"]',
            f".interactions[2]: must be an operation, such as $everything, or one of {KNOWN}",
        ),
        ("max_count = 0", ".max_count: Input should be greater than or equal to 1"),
        ("max_count = 1000001", ".max_count: Input should be less than or equal to 1000000"),
        (
            'network = ["203.0.113.7/24"]',
            (
                ".network[1]: must be an address or a network, such as 203.0.113.0/24 or 2001:db8::/32, "
                "without host bits"
            ),
        ),
        (
            "not_before = 5",
            ".not_before: unknown key 'not_before'. Fix: remove it, or see docs/configuration.md for the known ones",
        ),
    ],
)
def test_limits_that_are_none_are_refused_with_their_place(tmp_path: Path, limits: str, fault: str) -> None:
    """EP-12."""
    text = spoiled("handle_lifetime = 60", f"limits = {{ {limits} }}")

    assert faults_of(tmp_path, text) == [f"broker.toml:59: app[2].limits{fault}"]
