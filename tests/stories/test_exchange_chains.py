"""Chains of exchanges through the running broker: whatever is asked, nothing widens (RFC 8693, HB-05)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.handles import Handle
from broker.policy import effective_scopes
from broker.scopes import Scopes
from tests.stage import App, BrokerStage
from tests.stories.test_exchange import archive, ask, stage, summary

__all__ = ["archive", "stage", "summary"]

SCOPE_TEXTS = st.sampled_from(
    [
        "patient/*.rs",
        "patient/Patient.r",
        "patient/Observation.rs",
        "patient/Observation.rs?category=vital-signs",
        "patient/Observation.cruds",
        "user/*.rs",
        "patient/Patient.rs patient/Observation.rs offline_access",
        "launch/patient patient/*.r openid fhirUser",
    ]
)
NUMBERS = st.sampled_from(["1", "2", "30", "299", "3600", "1000000"])
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "scope": SCOPE_TEXTS,
        "patient": st.sampled_from(["the token's", "somebody-else"]),
        "expires_in": NUMBERS,
        "uses": NUMBERS,
    },
)
STEPS = st.lists(st.tuples(st.sampled_from(["growth-chart", "summary", "archive"]), REQUESTS), min_size=1, max_size=6)


async def is_narrower(stage: BrokerStage, parent: Handle, child: Handle) -> None:
    """Hold the two against each other in every dimension there is."""
    find = stage.broker.directory.app
    grant = await stage.broker.grants.read(parent.tag)
    before, after = effective_scopes(parent, grant, find), effective_scopes(child, grant, find)
    assert child.scopes.narrows(parent.scopes)
    assert after.narrows(before)
    assert child.expires_at <= parent.expires_at
    assert parent.patient in {None, child.patient}
    assert child.patient in {None, grant.terms.context.patient}
    assert set(parent.counters) <= set(child.counters)
    assert (child.tag, child.ehr, child.family) == (parent.tag, parent.ehr, parent.family)
    assert child.apps == (*parent.apps, child.app)


@pytest.mark.parametrize("app_scope", ["patient/*.rs", "patient/Patient.rs patient/Observation.cruds"])
async def test_no_chain_of_exchanges_widens_anything(
    stage: BrokerStage, app: App, summary: App, archive: App, app_scope: str
) -> None:
    """HB-05, HB-02, OA-18: scope, patient, time and uses only shrink."""
    root = await app.standalone(scope=f"launch/patient openid fhirUser offline_access {app_scope}")
    apps, loop = {one.client_id: one for one in (app, summary, archive)}, asyncio.get_running_loop()
    redeem, granted = stage.broker.handles.redeem, []

    async def walk(steps: list[tuple[str, dict[str, str]]]) -> None:
        text, chain = root["access_token"], []
        held, _ = await redeem(text, "sandbox")
        for client_id, changes in steps:
            asked = {**changes} | ({"patient": root["patient"]} if changes.get("patient") == "the token's" else {})
            answer = await ask(apps[client_id], text, **asked)
            if answer.status_code != 200:
                assert answer.status_code == 400
                assert set(answer.json()) == {"error", "error_description"}
                continue
            text = answer.json()["access_token"]
            child, _ = await redeem(text, "sandbox")
            await is_narrower(stage, held, child)
            assert Scopes.parse(answer.json()["scope"]) == child.scopes
            held = child
            chain.append(child)
        granted.append(len(held.ancestors))
        for made in chain:  # or the root could soon stand for no more
            await stage.broker.handles.revoke(made)

    await asyncio.to_thread(every_walk(walk, loop))
    assert max(granted) > 1, "some were chains"


def every_walk(walk: Callable[[Any], Any], loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Hypothesis calls it from a thread; the walks go on where the broker runs."""

    @settings(max_examples=40)
    @given(steps=STEPS)
    def walks(steps: list[tuple[str, dict[str, str]]]) -> None:
        asyncio.run_coroutine_threadsafe(walk(steps), loop).result()

    return walks
