"""What an operator is told where a registration has `dynamic_client = true` (EP-17)."""

from redis.asyncio import Redis

from broker.ehr.dynamic_client import REGISTER_SCOPE
from tests.commands.program import Operator
from tests.stage import Sandbox
from tests.stories.held import Held
from tests.stories.test_dynamic_client import dynamic


async def test_a_grant_shows_whether_it_has_a_client_of_its_own_or_why_not(
    sandbox: Sandbox, redis: Redis, operator: Operator
) -> None:
    """(EP-17)"""
    sandbox.switch(dynamic_clients=True)
    async with dynamic(sandbox, redis, operator.home) as held:
        sandbox.switch(dynamic_clients=False)
        plain = Held(held.stage, held.app, (await held.app.standalone())["access_token"], held.path)
        shown = [(await operator.run("grants", "show", tag, "--json")).json()[0] for tag in (held.tag, plain.tag)]
    assert [(grant["dynamic_client"], grant["generation"]) for grant in shown] == [
        ("registered", 2),
        ("the registration endpoint answered status 404 without a JSON object (OA-04)", 1),
    ]


async def test_an_ehr_without_a_registration_endpoint_is_pointed_out(
    sandbox: Sandbox, redis: Redis, operator: Operator
) -> None:
    """(EP-17)"""
    text = "registration sandbox-launch: dynamic_client = true without a registration_endpoint (EP-17)"
    seen = []
    for offered in (False, True):
        sandbox.switch(dynamic_clients=offered)
        await redis.flushall()
        async with dynamic(sandbox, redis, operator.home):
            (shown,) = (await operator.run("ehrs", "list", "--json")).json()
        seen.append(text in shown["warnings"])
    assert seen == [True, False]
    sandbox.switch(dynamic_clients=False)


async def test_the_scope_to_enter_at_the_ehr_is_among_those_shown(
    sandbox: Sandbox, redis: Redis, operator: Operator
) -> None:
    """(EP-17, RG-01)"""
    sandbox.switch(dynamic_clients=True)
    async with dynamic(sandbox, redis, operator.home):
        (shown,) = (await operator.run("registrations", "show", "sandbox-launch", "--json")).json()
    assert REGISTER_SCOPE in shown["scopes"]["sandbox"].split()
    sandbox.switch(dynamic_clients=False)
