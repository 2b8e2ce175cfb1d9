"""`/reauthorize/{link}`: what is no link is refused without a look-up, and repeats nothing."""

import pytest

from broker.credentials import HANDLE, REAUTHORIZATION, mint
from tests.refusals.refusal import assert_page, audited, nothing_sent
from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")
NEVER_MADE = mint(REAUTHORIZATION, "0" * 12, bytes).reveal()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("link", "cause"),
    [
        ("x", "malformed link"),
        (NEVER_MADE[:-1] + "!", "malformed link"),
        (NEVER_MADE[:-1], "malformed link"),
        (mint(HANDLE, "0" * 12, bytes).reveal(), "malformed link"),
        ("%3Cscript%3Ealert(1)%3C%2Fscript%3E", ""),
        ("a" * 10_000, "malformed link"),
        (NEVER_MADE, "unknown, used or expired link"),
    ],
)
async def test_what_is_no_link_is_refused(stage: BrokerStage, app: App, method: str, link: str, cause: str) -> None:
    if not cause:  # `%2F` ends the path's part
        assert (await app.http.request(method, f"{stage.public_url}/reauthorize/{link}")).status_code == 404
        return
    with nothing_sent(stage.sandbox), audited(stage, "grant.reauthorize", "denied", cause, hides=[link[:40]]):
        answer = await app.http.request(method, f"{stage.public_url}/reauthorize/{link}")

    assert_page(answer, 400, "invalid_request", hides=[link] if len(link) > 1 else [])
