"""EHRs that `broker.toml` takes from the catalogs it names."""

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


def write(tmp_path: Path, *entries: Entry) -> Path:
    (tmp_path / "ehrs").mkdir()
    (tmp_path / "ehrs" / "epic.json").write_text(dump(Catalog(ehrs=entries)))
    (tmp_path / "broker.toml").write_text(TOML)
    return tmp_path / "broker.toml"


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
