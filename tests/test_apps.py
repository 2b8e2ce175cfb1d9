"""What apps may have and what the broker says of itself, found without going through a registration's EHRs."""

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from broker.apps import App, Directory
from broker.ehr.discovery import Discovery
from broker.ehr.endpoints import Endpoints
from broker.ehr.site import Site
from broker.errors import EhrUnreachable, UnauthorizedClient
from broker.flows.describe_server import DescribeServer
from broker.settings import Settings

IDS = tuple(f"e{number}" for number in range(50))
FILTERS = " ".join(f"patient/Observation.rs?category={number}" for number in range(16))


class Watched(tuple[str, ...]):
    """A registration's EHRs, which can be gone through only while that is allowed."""

    __slots__ = ()
    allowed = True

    def __iter__(self) -> Iterator[str]:
        assert self.allowed, "the EHRs of a registration are gone through"
        return super().__iter__()

    def __contains__(self, ehr: object) -> bool:
        assert self.allowed, "the EHRs of a registration are searched"
        return super().__contains__(ehr)


def settings(**ehr: Any) -> Settings:
    """Write two registrations at fifty EHRs, and one app that may use both."""
    scopes = f"patient/Patient.rs {FILTERS}"
    registrations = [
        {"id": "launch", "ehr": IDS, "flow": "launch", "client_id": "c", "scopes": scopes},
        {"id": "backend", "ehr": IDS[:2], "flow": "backend", "client_id": "b", "scopes": "system/*.rs"},
    ]
    accesses = [{"registration": "launch", "scopes": FILTERS}, {"registration": "backend", "scopes": "system/*.r"}]
    keyed = {"authentication": "private_key_jwt", "jwks_uri": "https://app.example/jwks"}
    return Settings.model_validate(
        {
            "public_url": "https://broker.example",
            "ehr": [{"id": id_, "fhir_base": f"https://{id_}.example/r4", **ehr} for id_ in IDS],
            "registration": registrations,
            "app": [{"id": "a", **keyed, "redirect_uris": ["https://app.example/"], "access": accesses}],
        }
    )


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Directory:
    monkeypatch.setattr(Watched, "allowed", True)
    plain = settings()
    watched = [one.model_copy(update={"ehr": Watched(one.ehr)}) for one in plain.registration]
    return Directory(plain.model_copy(update={"registration": tuple(watched)}))


def the_app(directory: Directory) -> App:
    (app,) = directory.apps
    return app


def test_a_policy_of_as_many_filters_as_its_registration_has_is_resolved(directory: Directory) -> None:
    """SC-05."""
    assert str(the_app(directory).allowance("e1", "launch").scopes).split() == sorted(FILTERS.split())


@pytest.mark.parametrize(("ehr", "flow", "found"), [("e49", "launch", "launch"), ("e1", "backend", "backend")])
def test_an_allowance_is_found_without_going_through_every_ehr(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, ehr: str, flow: Literal["launch", "backend"], found: str
) -> None:
    app = the_app(directory)
    monkeypatch.setattr(Watched, "allowed", False)

    assert app.allowance(ehr, flow).registration.id == found


@pytest.mark.parametrize(("ehr", "flow"), [("e2", "backend"), ("e50", "launch")])
def test_what_the_policy_does_not_name_is_refused(
    directory: Directory, ehr: str, flow: Literal["launch", "backend"]
) -> None:
    with pytest.raises(UnauthorizedClient, match=f"app 'a' has no {flow} access to EHR '{ehr}'"):
        the_app(directory).allowance(ehr, flow)


def test_the_sites_of_an_ehr_are_found_without_going_through_every_ehr(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watched, "allowed", False)

    assert [site.fhir_base for site in directory.sites(directory.ehr("e49"))] == ["https://e49.example/r4"]


class Down(Discovery):
    """No EHR says anything."""

    def __init__(self) -> None:
        pass

    async def endpoints(self, site: Site) -> Endpoints:
        raise EhrUnreachable(f"{site.ehr} is down")


async def test_what_anybody_may_ask_is_told_without_going_through_every_ehr(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DS-03: these documents need no authentication, so each has to be cheap."""
    describe = DescribeServer(directory, Down(), lambda: 0.0)
    monkeypatch.setattr(Watched, "allowed", False)
    monkeypatch.setattr(directory, "_ehrs", {id_: directory.ehr(id_) for id_ in ("e1", "e2")})

    both, launched = await describe.smart_configuration("e1"), await describe.smart_configuration("e2")
    assert describe.authorization_server()["scopes_supported"] == [*sorted(FILTERS.split()), "system/*.r"]
    assert both["scopes_supported"] == [*sorted(FILTERS.split()), "system/*.r"]
    assert launched["scopes_supported"] == sorted(FILTERS.split())


def test_an_answer_about_the_server_can_be_changed_by_whoever_got_it(directory: Directory) -> None:
    describe = DescribeServer(directory, Down(), lambda: 0.0)
    describe.authorization_server().clear()

    assert describe.authorization_server()["issuer"] == "https://broker.example"


def test_of_ehrs_that_are_disabled_the_server_says_nothing() -> None:
    """BR-05."""
    whole = DescribeServer(Directory(settings(enabled=False)), Down(), lambda: 0.0).authorization_server()

    assert (whole["scopes_supported"], whole["grant_types_supported"]) == ([], [])
    assert "authorization_endpoint" not in whole
