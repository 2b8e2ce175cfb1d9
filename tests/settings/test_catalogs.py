"""EHRs that `broker.toml` takes from the catalogs it names."""

from dataclasses import replace
from pathlib import Path

import pytest

from broker.catalog import Catalog, Entry, dump
from broker.errors import ConfigurationError
from broker.settings import load

TOML = """
public_url = "https://broker.example"
ehr_catalogs = ["ehrs/epic.json"]
[[registration]]
id = "epic"
ehr = ["clinic", "hospital"]
flow = "launch"
client_id = "broker"
scopes = "patient/*.rs"
"""
CLINIC = Entry("clinic", "Clinic", "https://clinic.example/r4", "epic", "Endpoint/1", "4.0.1", enabled=True)
HOSPITAL = Entry("hospital", "Hospital", "https://hospital.example/r4", "epic", "Endpoint/2", None)


def write(tmp_path: Path, *entries: Entry, toml: str = TOML) -> Path:
    (tmp_path / "ehrs").mkdir()
    (tmp_path / "ehrs" / "epic.json").write_text(dump(Catalog(ehrs=entries)))
    (tmp_path / "broker.toml").write_text(toml)
    return tmp_path / "broker.toml"


def faults(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as raised:
        load(path, {})
    return raised.value.faults


def test_ehrs_of_a_catalog_stand_beside_those_of_the_file(tmp_path: Path) -> None:
    """(BR-05)"""
    settings = load(write(tmp_path, CLINIC, HOSPITAL), {})

    assert [(ehr.id, ehr.enabled) for ehr in settings.ehr] == [("clinic", True), ("hospital", False)]
    assert settings.ehr[0].profile.client_id_header == "Epic-Client-ID"


@pytest.mark.parametrize(
    ("spoiled", "fault"),
    [
        (Entry("clinic", "", "ftp://clinic.example", "epic", ""), "ehrs/epic.json: clinic: fhir_base: must be"),
        (Entry("clinic", "", "https://a.example", "nowhere", ""), "ehrs/epic.json: clinic: "),
        (Entry("Clinic!", "", "https://a.example", "epic", ""), "ehrs/epic.json: Clinic!: id: "),
        (
            Entry("hospital", "", "https://a.example", "epic", ""),
            "hospital: id: ehr 'hospital' is defined more than once",
        ),
    ],
)
def test_a_fault_in_a_catalog_names_the_file_and_the_entry(tmp_path: Path, spoiled: Entry, fault: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(write(tmp_path, spoiled, HOSPITAL), {})

    assert any(fault in line for line in raised.value.faults), raised.value.faults


def test_a_catalog_that_is_not_there_is_a_fault_with_its_fix(tmp_path: Path) -> None:
    path = write(tmp_path, CLINIC, HOSPITAL)
    (tmp_path / "ehrs" / "epic.json").unlink()

    with pytest.raises(ConfigurationError, match="broker ehrs import SOURCE --catalog"):
        load(path, {})


def test_a_disabled_ehr_may_have_the_address_of_another(tmp_path: Path) -> None:
    """A catalog lists what `broker.toml` may already have."""
    twin = Entry("twin", "", CLINIC.fhir_base, "generic", "Endpoint/9")

    assert len(load(write(tmp_path, CLINIC, HOSPITAL, twin), {}).ehr) == 3


OVERLAY = """
[[ehr]]
id = "clinic"
name = "Our clinic"
token_timeout = 20.0
scope_dialect = "v1"
"""


def test_an_ehr_of_the_file_says_what_an_imported_one_has_otherwise(tmp_path: Path) -> None:
    """(BR-02, BR-05)"""
    clinic, hospital = load(write(tmp_path, CLINIC, HOSPITAL, toml=TOML + OVERLAY), {}).ehr

    assert (clinic.id, clinic.name, clinic.token_timeout, clinic.profile.scope_dialect) == (
        "clinic",
        "Our clinic",
        20.0,
        "v1",
    )
    assert (clinic.fhir_base, clinic.enabled) == (CLINIC.fhir_base, True)
    assert clinic.profile.client_id_header == "Epic-Client-ID"
    assert (hospital.name, hospital.enabled) == ("Hospital", False)


@pytest.mark.parametrize("key", ["enabled = true", 'fhir_base = "https://elsewhere.example/r4"'])
def test_the_address_that_was_enabled_is_not_changed_from_outside_of_the_catalog(tmp_path: Path, key: str) -> None:
    """Else an import that disables a moved EHR would not (BR-05, DS-15)."""
    name = key.split(maxsplit=1)[0]
    (fault,) = faults(write(tmp_path, CLINIC, HOSPITAL, toml=f"{TOML}{OVERLAY}{key}\n"))

    line = (TOML + OVERLAY + key).splitlines().index(key) + 1
    assert f"broker.toml:{line}: ehr[1].{name}: 'clinic' is imported, and ehrs/epic.json says this" in fault


def test_an_imported_ehr_is_adjusted_once(tmp_path: Path) -> None:
    twice = TOML.replace('["ehrs/epic.json"]', '["ehrs/epic.json", "ehrs/../ehrs/epic.json"]')

    assert any("'clinic' is defined more than once" in f for f in faults(write(tmp_path, CLINIC, HOSPITAL, toml=twice)))


def test_the_environment_of_an_imported_ehr_is_that_of_its_entry(tmp_path: Path) -> None:
    """(EP-02)"""
    sandbox = replace(CLINIC, environment="non_production")

    (fault,) = faults(write(tmp_path, sandbox, HOSPITAL))
    assert "production registration at non_production EHR 'clinic' (EP-02)" in fault


def of_catalog(ehr: str) -> str:
    return TOML.replace('["clinic", "hospital"]', ehr)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"catalog:ehrs/epic.json"', ("clinic",)),
        ('["catalog:ehrs/epic.json"]', ("clinic",)),
        ('["hospital", "catalog:ehrs/epic.json", "clinic"]', ("hospital", "clinic")),
    ],
)
def test_a_registration_is_for_the_enabled_ehrs_of_a_catalog(
    tmp_path: Path, written: str, meant: tuple[str, ...]
) -> None:
    """(BR-05, EP-01)"""
    settings = load(write(tmp_path, CLINIC, HOSPITAL, toml=of_catalog(written)), {})

    assert settings.registration[0].ehr == meant


def test_a_redirect_uri_stays_when_another_ehr_of_the_catalog_is_enabled(tmp_path: Path) -> None:
    """RG-02: it is registered at the EHR."""
    (one,) = load(write(tmp_path, CLINIC, HOSPITAL, toml=of_catalog('"catalog:ehrs/epic.json"')), {}).registration

    assert (len(one.ehr), one.has_own_callbacks, one.shares_callback) == (1, True, False)


def test_a_registration_of_a_catalog_may_still_share_its_callback(tmp_path: Path) -> None:
    """(CB-07)"""
    shared = of_catalog('"catalog:ehrs/epic.json"\ncallback = "shared"')
    (one,) = load(write(tmp_path, CLINIC, HOSPITAL, toml=shared), {}).registration

    assert (one.has_own_callbacks, one.shares_callback) == (False, True)


def test_a_catalog_of_which_nothing_is_enabled_makes_nothing_reachable(tmp_path: Path) -> None:
    """(BR-05)"""
    (one,) = load(write(tmp_path, HOSPITAL, toml=of_catalog('"catalog:ehrs/epic.json"')), {}).registration

    assert one.ehr == ()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('"catalog:ehrs/oracle.json"', "there is no catalog:ehrs/oracle.json; ehr_catalogs: ehrs/epic.json"),
        ('["clinic", "catalog:"]', "there is no catalog:; ehr_catalogs: ehrs/epic.json"),
        ("[]", "names no EHR"),
    ],
)
def test_a_registration_that_names_nothing_is_a_fault_with_its_line(tmp_path: Path, written: str, said: str) -> None:
    (fault,) = faults(write(tmp_path, CLINIC, HOSPITAL, toml=of_catalog(written)))

    assert f"broker.toml:6: registration[1].ehr: {said}" in fault


@pytest.mark.parametrize("written", ["7", "[7]", '[["catalog:ehrs/epic.json"]]'])
def test_what_is_no_list_of_ids_is_a_fault(tmp_path: Path, written: str) -> None:
    assert all(": registration[1].ehr" in fault for fault in faults(write(tmp_path, CLINIC, toml=of_catalog(written))))
