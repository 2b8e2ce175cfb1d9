"""The judge itself: each fault is found in an answer that is otherwise sound."""

import json

import pytest

from tests.fuzz.answers import PAGE, Answer, assert_sound
from tests.fuzz.target import Target

QUIET = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
JSON = {"content-type": "application/json"}
REFUSAL = json.dumps({"error": "invalid_request", "error_description": "The request is not valid."}).encode()


def sound(path: str = "/oauth/token", status: int = 400, body: bytes = REFUSAL, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(path, status, {**QUIET, **JSON, **named}, body)


def test_a_sound_answer_is_sound(target: Target) -> None:
    assert_sound(sound(), target, ["what<was>asked"])


@pytest.mark.parametrize(
    "answer",
    [
        sound(status=500),
        sound(content_type="text/plain"),
        sound(content_type=PAGE),
        sound(body=b"{}"),
        sound(path="/fhir/sandbox/Patient"),
        sound(path="/readyz"),
        sound(path="/launch/x", content_type=PAGE, body=b"<script>"),
        sound(cache_control="public, max-age=300"),
        sound(x_content_type_options=""),
        sound(referrer_policy="origin"),
        sound(status=303, location="https://attacker.example/"),
        sound(status=200, x_note="canary-token"),
        sound(body=REFUSAL.replace(b"The request", b"what<was>asked")),
    ],
    ids=lambda answer: f"{answer.status} {answer.path} {answer.headers['content-type']}",
)
def test_an_unsound_answer_is_found(target: Target, answer: Answer) -> None:
    with pytest.raises(AssertionError):
        assert_sound(answer, target, ["what<was>asked"])


@pytest.mark.parametrize("secret", range(8))
def test_every_secret_is_looked_for(target: Target, secret: int) -> None:
    with pytest.raises(AssertionError):
        assert_sound(sound(status=200, body=f'{{"echo": "{target.secrets[secret]}"}}'.encode()), target)
