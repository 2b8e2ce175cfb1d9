"""With the key-encryption keys in a real OpenBao."""

from tests.commands.program import Operator
from tests.kms.openbao import OpenBao


def with_openbao(operator: Operator, openbao: OpenBao, token: str | None = None) -> Operator:
    return operator.but(
        BROKER_KEK_FILE=None, BROKER_KMS=f"transit:{openbao.address}/transit", BROKER_KMS_TOKEN=token or openbao.token
    )


async def test_a_check_has_a_key_wrapped_and_unwrapped(at_stage: Operator, openbao: OpenBao) -> None:
    """What the stage has in its store is still under a keyring, which is said, too."""
    said = await with_openbao(at_stage, openbao).run("check", "--json")

    wraps, lacks = [finding for finding in said.json() if finding["part"] == "key"]
    assert wraps == {"part": "key", "level": "ok", "text": "transit:broker.default:1 wraps and unwraps"}
    assert (lacks["level"], "which is not on the keyring" in lacks["text"]) == ("fault", True)


async def test_a_check_offline_does_not_ask(at_stage: Operator) -> None:
    nowhere = at_stage.but(
        BROKER_KEK_FILE=None, BROKER_KMS="transit:http://127.0.0.1:9/transit", BROKER_KMS_TOKEN="canary-token"
    )
    said = await nowhere.run("check", "--offline", "--json")

    (finding,) = [finding for finding in said.json() if finding["part"] == "key"]
    assert (said.status, finding["level"]) == (0, "ok")
    assert finding["text"] == "at the key-management service, which was not asked"


async def test_a_check_says_what_is_wrong_with_a_token(at_stage: Operator, openbao: OpenBao) -> None:
    said = await with_openbao(at_stage, openbao, token="canary-token").run("check", "--json")

    (finding,) = [finding for finding in said.json() if finding["part"] == "key"]
    assert (said.status, finding["level"]) == (78, "fault")
    assert finding["text"].startswith("key_unavailable: Transit does not accept our token. Fix: ")
    assert "canary-token" not in said.out
