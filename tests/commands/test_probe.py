"""`broker probe`, as an operator has it."""

from tests.commands.program import Operator
from tests.stage import Sandbox


async def test_the_command_prints_the_block_and_ends_with_0(operator: Operator, sandbox: Sandbox) -> None:
    said = await operator.run("probe", sandbox.fhir_base, "--allow-loopback-http")
    refused = await operator.run("probe", sandbox.fhir_base)

    assert said.status == 0, said.err
    assert f'fhir_base = "{sandbox.fhir_base}"' in said.out.splitlines()
    assert (refused.status, "not https" in refused.out) == (1, True)
