"""The pages: a person signs in, chooses a patient, approves; and launches an app from a chart."""

import re
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.sandbox.oauth.conftest import Start
from tests.sandbox.oauth.driver import FHIR_BASE, Driver, redirected


async def test_a_clinician_signs_in_chooses_a_patient_and_approves(staffed_ehr: Driver) -> None:
    visit = visit_in(await staffed_ehr.authorize())
    picker = await post(staffed_ehr, "login", visit=visit, username="doctor", password="clinic")
    assert "<h1>Choose a patient</h1>" in picker.text
    found = await staffed_ehr.http.get("/oauth2/patient", params={"visit": visit, "q": "lopez 1979"})
    (patient,) = re.findall(r'name="patient" value="([^"]+)"', found.text)
    approval = await post(staffed_ehr, "patient", visit=visit, patient=patient)
    assert "Read and search Observation records of this patient" in approval.text
    code = redirected(await post(staffed_ehr, "approve", visit=visit, decision="approve"))["code"]
    assert (await staffed_ehr.exchange(code)).json()["patient"] == patient


async def test_a_patient_who_signs_in_has_nobody_to_choose(staffed_ehr: Driver) -> None:
    visit = visit_in(await staffed_ehr.authorize())
    approval = await post(staffed_ehr, "login", visit=visit, username="patient", password="mychart")
    assert 'name="decision"' in approval.text
    code = redirected(await post(staffed_ehr, "approve", visit=visit, decision="approve"))["code"]
    tokens = (await staffed_ehr.exchange(code)).json()
    introspected = await staffed_ehr.http.post(
        "/oauth2/introspect", data={"token": tokens["access_token"]}, auth=(staffed_ehr.client_id, staffed_ehr.secret)
    )
    assert introspected.json()["fhirUser"] == f"{FHIR_BASE}/Patient/{tokens['patient']}"


async def test_no_patient_is_asked_for_when_none_is_needed(staffed_ehr: Driver) -> None:
    visit = visit_in(await staffed_ehr.authorize(scope="openid fhirUser"))
    approval = await post(staffed_ehr, "login", visit=visit, username="doctor", password="clinic")
    assert 'name="decision"' in approval.text


async def test_an_ehr_launch_asks_only_for_approval(staffed_ehr: Driver) -> None:
    home = (await staffed_ehr.http.get("/")).text
    patient = re.findall(r'href="/patients/([^"]+)"', home)[1]
    launched = await staffed_ehr.http.post(f"/patients/{patient}/launch", data={"client_id": "app"})
    assert launched.status_code == 303
    url = urlsplit(launched.headers["location"])
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert f"{url.scheme}://{url.netloc}{url.path}" == "http://app.example/launch"
    assert query.keys() == {"iss", "launch"}
    assert query["iss"] == FHIR_BASE
    approval = await staffed_ehr.authorize(launch=query["launch"], scope="launch patient/*.rs")
    assert 'name="decision"' in approval.text
    code = redirected(await post(staffed_ehr, "approve", visit=visit_in(approval), decision="approve"))["code"]
    tokens = (await staffed_ehr.exchange(code)).json()
    assert tokens["patient"] == patient
    assert tokens["encounter"]


async def test_a_user_can_say_no(staffed_ehr: Driver) -> None:
    visit = visit_in(await staffed_ehr.authorize())
    await post(staffed_ehr, "login", visit=visit, username="patient", password="mychart")
    carried = redirected(await post(staffed_ehr, "approve", visit=visit, decision="deny"))
    assert (carried["error"], carried["state"]) == ("access_denied", "the-state")


async def test_a_wrong_password_is_asked_for_again(staffed_ehr: Driver) -> None:
    visit = visit_in(await staffed_ehr.authorize())
    answer = await post(staffed_ehr, "login", visit=visit, username="doctor", password="wrong")
    assert answer.status_code == 403
    assert "do not belong together" in answer.text
    assert visit_in(answer) == visit


@pytest.mark.parametrize(("path", "form"), [("patient", {"patient": "someone"}), ("approve", {"decision": "approve"})])
async def test_no_step_can_be_taken_before_signing_in(staffed_ehr: Driver, path: str, form: dict[str, str]) -> None:
    visit = visit_in(await staffed_ehr.authorize())
    assert (await post(staffed_ehr, path, visit=visit, **form)).status_code == 400


async def test_a_patient_cannot_be_left_out_or_made_up(staffed_ehr: Driver) -> None:
    visit = visit_in(await staffed_ehr.authorize())
    await post(staffed_ehr, "login", visit=visit, username="doctor", password="clinic")
    assert (await post(staffed_ehr, "approve", visit=visit, decision="approve")).status_code == 400
    assert (await post(staffed_ehr, "patient", visit=visit, patient="nobody")).status_code == 400


async def test_a_patient_who_signed_in_cannot_choose_another(staffed_ehr: Driver) -> None:
    home = (await staffed_ehr.http.get("/")).text
    other = re.findall(r'href="/patients/([^"]+)"', home)[1]
    visit = visit_in(await staffed_ehr.authorize())
    await post(staffed_ehr, "login", visit=visit, username="patient", password="mychart")
    assert (await post(staffed_ehr, "patient", visit=visit, patient=other)).status_code == 400


async def test_a_visit_ends_with_its_decision_and_after_ten_minutes(staffed_ehr: Driver) -> None:
    visit = visit_in(await staffed_ehr.authorize())
    await post(staffed_ehr, "login", visit=visit, username="patient", password="mychart")
    await post(staffed_ehr, "approve", visit=visit, decision="deny")
    assert (await post(staffed_ehr, "approve", visit=visit, decision="approve")).status_code == 400
    late = visit_in(await staffed_ehr.authorize())
    staffed_ehr.now.seconds += 600
    assert (await post(staffed_ehr, "login", visit=late, username="doctor", password="clinic")).status_code == 400


async def test_a_chart_shows_what_the_fhir_server_holds(ehr: Driver) -> None:
    tokens = await ehr.tokens(scope="patient/*.rs")
    chart = (await ehr.http.get(f"/patients/{tokens['patient']}")).text
    conditions = (await ehr.fhir(tokens["access_token"], f"Condition?patient={tokens['patient']}")).json()
    problems = [entry["resource"]["code"]["text"] for entry in conditions["entry"]]
    assert problems
    for text in (*problems, "<h1>Amy Shaw</h1>", "Heart rate", "Launch app"):
        assert text in chart


async def test_a_patient_that_does_not_exist_has_no_chart(ehr: Driver) -> None:
    assert (await ehr.http.get("/patients/nobody")).status_code == 404


async def test_an_app_that_is_not_registered_cannot_be_launched(ehr: Driver) -> None:
    patient = (await ehr.tokens())["patient"]
    answer = await ehr.http.post(f"/patients/{patient}/launch", data={"client_id": "nobody"})
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/", "/?q=%22%3E%3Cscript%3E", "/oauth2/authorize", "/patients/nobody"])
async def test_pages_load_nothing_from_elsewhere_and_run_no_scripts(ehr: Driver, path: str) -> None:
    answer = await ehr.http.get(path)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "<script" not in answer.text
    assert "//" not in re.sub(rf"{re.escape(FHIR_BASE)}", "", answer.text)


async def test_names_of_clients_are_escaped(start: Start) -> None:
    async with start(auto_approve=False) as ehr:
        await ehr.register(client_name="<b>bold</b>")
        assert "&lt;b&gt;bold&lt;/b&gt;" in (await ehr.authorize()).text


async def test_the_style_sheet_is_served(ehr: Driver) -> None:
    answer = await ehr.http.get("/static/sandbox.css")
    assert answer.headers["content-type"].startswith("text/css")


def visit_in(answer: httpx2.Response) -> str:
    found = re.search(r'name="visit" value="([0-9a-f]{48})"', answer.text)
    assert found, answer.text
    return found[1]


async def post(ehr: Driver, path: str, **form: str) -> httpx2.Response:
    return await ehr.http.post(f"/oauth2/{path}", data=form)
