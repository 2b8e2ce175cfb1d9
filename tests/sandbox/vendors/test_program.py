"""`python -m sandbox --personality`: a vendor on a real port."""

import httpx2

from tests.sandbox.oauth.test_program import program


def test_a_personality_and_a_fault_can_be_there_from_the_start() -> None:
    """(OT-01, DS-14)"""
    with program("--personality", "athena", "--fault", "discovery_list") as (_, url), httpx2.Client() as http:
        smart = f"{url}/api/FHIR/R4/.well-known/smart-configuration"
        assert http.get(smart).json() == ["not an object"]
        issuer = http.get(smart).json()["issuer"]
        assert issuer == f"{url.replace('127.0.0.1', 'localhost')}/oauth2/aus0lakeside"
        assert http.get(f"{issuer}/.well-known/openid-configuration").json()["issuer"] == issuer
