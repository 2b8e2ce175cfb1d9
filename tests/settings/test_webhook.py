"""What a `[[webhook]]` may say."""

import base64
from pathlib import Path

import pytest

from broker.settings.webhook import signing_key
from tests.settings.files import ENVIRON, GOOD, faults_of, load_text

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
WEBHOOK = """
[[webhook]]
id = "pager"
url = "https://hooks.example/grants"
secret = "env:HOOK"
"""
FIX = 'Fix: printf whsec_%s "$(openssl rand -base64 32)"'
MISWRITTEN = f"webhook[1].secret: must be whsec_ and base64 of 24 to 64 random bytes. {FIX}"


def environ(secret: str = KEY) -> dict[str, str]:
    return {**ENVIRON, "HOOK": secret}


def test_a_webhook_hears_of_everything_unless_it_says_otherwise(tmp_path: Path) -> None:
    (webhook,) = load_text(tmp_path, GOOD + WEBHOOK, environ()).webhook

    assert webhook.url == "https://hooks.example/grants"
    assert [signing_key(secret) for secret in webhook.secret] == [bytes(range(32))]
    assert webhook.events == ("healthy", "degraded", "uncertain", "needs_reauth", "suspended", "revoked")
    assert KEY not in repr(webhook)


def test_two_secrets_are_for_the_time_of_a_change(tmp_path: Path) -> None:
    (tmp_path / "newer").write_text("whsec_" + base64.b64encode(bytes(64)).decode() + "\n")
    text = GOOD + WEBHOOK.replace('"env:HOOK"', '["file:newer", "env:HOOK"]')

    (webhook,) = load_text(tmp_path, text, environ()).webhook

    assert [len(signing_key(secret)) for secret in webhook.secret] == [64, 32]


@pytest.mark.parametrize(
    "secret",
    [
        "a secret of more than twenty-four bytes",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_not base64 of anything at all, is it",
        "whsec_",
    ],
)
def test_a_secret_is_written_as_standard_webhooks_has_it(tmp_path: Path, secret: str) -> None:
    (fault,) = faults_of(tmp_path, GOOD + WEBHOOK, environ(secret))

    assert fault.endswith(MISWRITTEN)
    assert secret.removeprefix("whsec_")[:8] not in fault or secret == "whsec_"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "env:HOOK",
            KEY,
            "webhook[1].secret: a secret never stands in the file itself. Fix: write env:NAME or file:PATH",
        ),
        ("env:HOOK", "env:NONE", "webhook[1].secret: env:NONE is empty or not set"),
        ('"env:HOOK"', "[]", "webhook[1].secret: Tuple should have at least 1 item after validation, not 0"),
        ("https://", "http://", "webhook[1].url: http://hooks.example/grants is plain http"),
        (
            "/grants",
            "/grants?token=x",
            "webhook[1].url: must have no query: a secret in it would be in logs on the way",
        ),
        ("hooks.example", "user@hooks.example", "webhook[1].url: must be an absolute https URL without user name"),
        ('"env:HOOK"', '"env:HOOK"\nevents = ["refreshing"]', "webhook[1].events[1]: Input should be 'healthy'"),
        ('id = "pager"', 'id = "pager"\nsecrets = 1', "unknown key 'secrets'"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, old: str, new: str, fault: str) -> None:
    (found,) = faults_of(tmp_path, GOOD + WEBHOOK.replace(old, new), environ())

    assert fault in found


def test_two_webhooks_have_two_names(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, GOOD + WEBHOOK + WEBHOOK, environ())

    assert [fault.partition(": ")[2] for fault in faults] == [
        f"webhook[{number}].id: webhook 'pager' is defined more than once" for number in (1, 2)
    ]


def test_plain_http_is_for_this_machine_alone(tmp_path: Path) -> None:
    local = WEBHOOK.replace("https://hooks.example", "http://127.0.0.1:9")

    load_text(tmp_path, "allow_loopback_http = true\n" + GOOD + local, environ())
    (fault,) = faults_of(tmp_path, GOOD + local, environ())
    assert "set allow_loopback_http = true" in fault
