"""An app in a frame of the chart, and two charts side by side (AL-22, nasty case 20)."""

import html
import re
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.sandbox.oauth.driver import FHIR_BASE, ORIGIN, Driver


async def patients(ehr: Driver) -> list[str]:
    return re.findall(r'href="/patients/([^"]+)"', (await ehr.http.get("/")).text)


def frame(page: httpx2.Response) -> str:
    """Return the address in the frame."""
    assert page.status_code == 200, page.text
    (source,) = re.findall(r'<iframe [^>]*src="([^"]+)"', page.text)
    return html.unescape(source)


async def embedded(ehr: Driver, patient: str) -> str:
    chosen = {"client_id": "app", "patient": patient, "embedded": True}
    answer = await ehr.http.post("/__launch", json=chosen)
    return str(answer.json()["url"])


async def test_the_chart_launches_the_app_in_a_frame(ehr: Driver) -> None:
    """(AL-22)"""
    patient = (await patients(ehr))[1]
    assert f'formaction="/patients/{patient}/embedded"' in (await ehr.http.get(f"/patients/{patient}")).text
    answer = await ehr.http.post(f"/patients/{patient}/embedded", data={"client_id": "app"})
    assert answer.status_code == 303
    url = urlsplit(frame(await ehr.http.get(answer.headers["location"])))
    assert f"{url.scheme}://{url.netloc}{url.path}" == "http://app.example/launch"
    assert parse_qs(url.query)["iss"] == [FHIR_BASE]


async def test_two_charts_launch_for_two_patients(ehr: Driver) -> None:
    """(AL-22)"""
    first, second = (await patients(ehr))[:2]
    pages = [await embedded(ehr, patient) for patient in (first, second)]
    assert pages[0] != pages[1]
    seen = []
    for page in reversed(pages):
        launch = parse_qs(urlsplit(frame(await ehr.http.get(page))).query)["launch"][0]
        tokens = await ehr.tokens(launch=launch, scope="launch patient/Patient.rs")
        seen.append(tokens["patient"])
    assert seen == [second, first]


async def test_the_frame_may_go_where_the_launch_goes_and_the_page_is_framed_by_nobody(ehr: Driver) -> None:
    page = await ehr.http.get(await embedded(ehr, (await patients(ehr))[0]))
    policy = page.headers["content-security-policy"]
    assert "frame-src http: https:" in policy
    assert "frame-ancestors 'none'" in policy


async def test_the_pages_of_the_authorization_may_be_framed_by_the_chart_alone(staffed_ehr: Driver) -> None:
    """(AL-22)"""
    answer = await staffed_ehr.authorize()
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]


async def test_a_reset_ends_what_waits_in_frames(ehr: Driver) -> None:
    page = await embedded(ehr, (await patients(ehr))[0])
    await ehr.http.post("/__reset")
    assert (await ehr.http.get(page)).status_code == 404
    assert (await ehr.http.get(f"{ORIGIN}/embedded/unknown")).status_code == 404


@pytest.mark.parametrize("embed", ["yes", 2, []])
async def test_embedded_is_true_or_false(ehr: Driver, embed: object) -> None:
    chosen = {"client_id": "app", "patient": (await patients(ehr))[0], "embedded": embed}
    assert (await ehr.http.post("/__launch", json=chosen)).status_code == 400


async def test_a_chart_has_no_frame_for_an_unknown_client(ehr: Driver) -> None:
    patient = (await patients(ehr))[0]
    assert (await ehr.http.post(f"/patients/{patient}/embedded", data={"client_id": "nobody"})).status_code == 400


async def test_a_launch_can_open_in_a_new_tab(ehr: Driver) -> None:
    patient = (await patients(ehr))[0]
    assert 'formtarget="_blank"' in (await ehr.http.get(f"/patients/{patient}")).text
