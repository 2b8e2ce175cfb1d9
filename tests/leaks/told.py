"""A grant ends, a webhook is told, and the person authorizes it again by a link; somebody else tries before."""

import base64
from pathlib import Path

from tests.leaks.evidence import Evidence, listening
from tests.stage import BrokerStage, Browser

SECRET = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
WEBHOOK = """
[[webhook]]
id = "pager"
url = "http://127.0.0.1:1/"
secret = "file:webhook"
"""


def settings(folder: Path, evidence: Evidence) -> str:
    """Return more of broker.toml: a webhook that nobody answers at, so that its event stays in the store."""
    (folder / "webhook").write_text(SECRET)
    evidence.add("secret of a webhook", SECRET, SECRET.removeprefix("whsec_"))
    return WEBHOOK


async def told_journeys(stage: BrokerStage, evidence: Evidence) -> None:
    """Play it."""
    async with listening(stage.app(), evidence, stage.public_url) as app:
        given = await app.standalone()
        tag = given["access_token"][4:16]
        await stage.broker.grants.end(tag, "needs_reauth", "test")
        await stage.broker.grants.untold.close()
        await stage.broker.telling.look()
        offer = await stage.broker.offer_reauthorization(tag, lifetime=300)
        evidence.reprs += [repr(offer), repr(stage.broker.settings.webhook), repr(stage.broker.telling)]
        link = offer.url.reveal()
        evidence.add("link to authorize again", link.rpartition("/")[2])
        async with listening(stage.app(), evidence, stage.public_url) as person:
            await play_link(stage, person.browser, link)
        assert (await app.fhir(given["access_token"], f"Patient/{given['patient']}")).status_code == 200


async def play_link(stage: BrokerStage, person: Browser, link: str) -> None:
    """Open it, go on as somebody else, then as the right person, then once too often."""
    for wrong in (True, False):
        assert (await person.http.get(link)).status_code == 200
        if wrong:
            stage.sandbox.fault("token_members", set={"patient": "somebody-else"})
        landing = await person.open((await person.http.post(link)).headers["location"])
        assert landing.status == (403 if wrong else 200)
    assert (await person.http.get(link)).status_code == 400
