import pytest

from broker.ehr.capabilities import KNOWN, capability_sets, unknown

STANDALONE = {"launch-standalone", "client-public", "permission-patient"}
CLINICIAN_EHR = {
    "launch-ehr",
    "client-confidential-symmetric",
    "context-ehr-patient",
    "context-ehr-encounter",
    "permission-user",
    "permission-patient",
}


def test_every_capability_of_smart_is_known_and_says_what_it_is_for() -> None:
    """(DS-16)"""
    assert len(KNOWN) == 20
    assert all(KNOWN.values())
    assert unknown(KNOWN) == []


def test_what_is_not_smarts_is_kept_and_told_apart() -> None:
    """(DS-16)"""
    assert unknown(["launch-ehr", "https://ehr.example/capability", "Launch-EHR"]) == [
        "https://ehr.example/capability",
        "Launch-EHR",
    ]


@pytest.mark.parametrize(
    ("listed", "sets"),
    [
        (STANDALONE | {"context-standalone-patient"}, ["Patient-Standalone"]),
        (STANDALONE | {"permission-user"}, ["Clinician-Standalone"]),
        (STANDALONE, []),
        (CLINICIAN_EHR, ["Patient-EHR", "Clinician-EHR"]),
        (CLINICIAN_EHR - {"context-ehr-encounter"}, ["Patient-EHR"]),
        (CLINICIAN_EHR - {"client-confidential-symmetric"}, []),
        (CLINICIAN_EHR - {"client-confidential-symmetric"} | {"client-confidential-asymmetric"}, []),
        (set(KNOWN), ["Patient-Standalone", "Patient-EHR", "Clinician-Standalone", "Clinician-EHR"]),
        (set(), []),
    ],
)
def test_an_ehr_satisfies_the_sets_whose_every_capability_it_lists(listed: set[str], sets: list[str]) -> None:
    """With at least one kind of client that every set asks for (DS-17)."""
    assert capability_sets(listed) == sets
