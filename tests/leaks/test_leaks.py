"""No secret and no PHI in any sink, after every journey, well and badly (blueprint §5.1, §5.10; HB-07, TR-09)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.flows.ask_ehr import Redirect
from broker.flows.fhir_request import FhirRequest
from broker.launches import AppRequest, Browser
from broker.secret import Secret

SINKS = ("log", "audit_file", "audit_stream", "redis", "traces", "answers", "reprs", "errors")
WITHOUT_PHI = tuple(sink for sink in SINKS if sink != "answers")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("leaks")
    with (folder / "log.txt").open("w") as log_file:
        command = [sys.executable, "-m", "tests.leaks.journeys", str(folder)]
        ended = subprocess.run(command, cwd=ROOT, stdout=log_file, stderr=log_file, timeout=55, check=False)
    assert ended.returncode == 0, (folder / "log.txt").read_text()[-4000:]
    return dict(json.loads((folder / "evidence.json").read_text()))


def leaks(found: dict[str, Any], sink: str) -> list[str]:
    """Return the kinds of secret that stand in a sink."""
    text = found["sinks"][sink]
    return [kind for kind, values in found["secrets"].items() if any(value in text for value in values)]


def phi(found: dict[str, Any], sink: str) -> list[str]:
    """Return the personal data that stands in a sink."""
    return [value for value in found["phi"] if value in found["sinks"][sink]]


@pytest.mark.parametrize("sink", SINKS)
def test_no_secret_stands_in(evidence: dict[str, Any], sink: str) -> None:
    """HB-04, HB-07, ID-09, RG-07, TR-09."""
    assert leaks(evidence["clean"], sink) == []


@pytest.mark.parametrize("sink", WITHOUT_PHI)
def test_no_patient_name_or_search_value_stands_in(evidence: dict[str, Any], sink: str) -> None:
    assert phi(evidence["clean"], sink) == []


@pytest.mark.parametrize("sink", SINKS)
def test_a_planted_leak_is_found_in(evidence: dict[str, Any], sink: str) -> None:
    """The searches above can fail: the same run, with one leak in each sink."""
    assert leaks(evidence["planted"], sink) == ["anything the simulated EHR gave"]
    assert evidence["clean"]["phi"][0] in phi(evidence["planted"], sink)


def test_the_run_saw_every_kind_of_secret_and_filled_every_sink(evidence: dict[str, Any]) -> None:
    found = evidence["clean"]
    least = {
        "handle": 8,
        "refresh handle": 6,
        "code": 5,
        "launch in a redirect": 2,
        "state in a redirect": 10,
        "nonce in a redirect": 10,
        "state, nonce, verifier or cookie": 40,
        "cookie": 10,
        "state of the app": 10,
        "verifier of the app": 10,
        "code that nobody issued": 1,
        "told to the echoing EHR": 8,
        "raw token": 1,
        "tab key": 1,
        "request_uri in a redirect": 2,
        "proof key of a grant": 1,
        "proof of an app": 1,
        "dynamic client": 2,
        "token of a workload": 1,
        "certificate of an app": 2,
        "secret of the app": 2,
        "secret of the broker": 2,
        "key-encryption key": 3,
        "key of the keyed hashes": 3,
        "signing key": 3,
        "id_token of the broker's own": 1,
        "anything the simulated EHR gave": 1,
        "JWT": 2,
        "secret of a webhook": 2,
        "link to authorize again": 1,
    }
    assert set(found["secrets"]) == set(least)
    assert not {kind: len(found["secrets"][kind]) for kind in least if len(found["secrets"][kind]) < least[kind]}
    assert len(found["phi"]) >= 6
    for sink in set(SINKS) - {"traces"}:
        assert len(found["sinks"][sink]) > 2000, sink
    assert '"code": "server_error", "detail": "unexpected RuntimeError at' in found["sinks"]["log"]
    events = {json.loads(line)["event"] for line in found["sinks"]["audit_file"].splitlines()}
    assert events >= {
        "launch.begin",
        "launch.finish",
        "grant.create",
        "grant.refresh",
        "grant.revoke",
        "handle.mint",
        "handle.use",
        "handle.answer",
        "handle.introspect",
        "handle.revoke",
        "grant.register",
        "grant.reauthorize",
        "webhook.send",
        "app.authorize",
        "app.authenticate",
    }


def test_a_token_that_an_ehr_repeats_is_cut_out_of_headers_and_bodies(evidence: dict[str, Any]) -> None:
    """HB-07."""
    answers = evidence["clean"]["sinks"]["answers"]
    assert answers.count('"diagnostics": "you sent [removed], and [removed]"') == 4
    assert answers.count("/Patient/[removed]\n") >= 8


def test_the_audit_stream_says_what_the_file_says(evidence: dict[str, Any]) -> None:
    assert evidence["clean"]["sinks"]["audit_stream"] == evidence["clean"]["sinks"]["audit_file"]


S = "canary-in-a-repr"


@pytest.mark.parametrize(
    "thing",
    [
        Secret(S),
        Redirect(f"https://app.example/callback?code={S}", Browser("sb_launch_1", Secret(S))),
        AppRequest("https://app.example/callback", S, "challenge", "patient/*.rs"),
        FhirRequest("ehr", S, "GET", S.encode(), S.encode(), ((b"authorization", S.encode()),), None, "rid"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_carries_a_secret_or_phi_does_not_print_it(thing: object) -> None:
    assert S not in repr(thing)
    assert S not in str(thing)
    assert S not in f"{thing}"
