"""What is kept in Redis is documented as it is: keys, lifetimes, atomic steps, envelope, rights."""

import inspect
import re
from typing import Final

import pytest

from broker import audit, codes, dpop, launches, reauthorizations
from broker.app.trail import AUDIT_STREAM_LENGTH
from broker.bulk.job import KEPT_SECONDS
from broker.bulk.jobs import LEARNED_SECONDS
from broker.fair_use import bucket
from broker.flows import introspect_grant
from broker.flows.proof import last_used
from broker.grants import backend_grants, records, untold
from broker.refresh import ends, gate, insisting, keeper, limits, renewal, schedule, sending
from broker.store import keys
from broker.webhooks import delivering, gathering, outbox, retries
from tests.docs.pages import ROOT, code, read, rows, section

LIVES: Final = {
    "sb:{TAG}:grant": (
        records.RETENTION_SECONDS,
        records.SHORT_RETENTION_SECONDS,
        records.REVOKED_RETENTION_SECONDS,
    ),
    "sb:{TAG}:lease": (int(sending.LEASE_SECONDS),),
    "sb:{TAG}:code:HASH": (codes.CODE_SECONDS, codes.REPLAY_SECONDS),
    "sb:{TAG}:launch:HASH": (codes.LAUNCH_SECONDS,),
    "sb:{TAG}:reauthorize:HASH": (reauthorizations.LONGEST_SECONDS,),
    "sb:{TAG}:begun:HASH": (int(reauthorizations.BEGUN_SECONDS),),
    "sb:{TAG}:proof:HASH": (2 * dpop.WINDOW_SECONDS,),
    "sb:{TAG}:introspected": (introspect_grant.EVERY_SECONDS,),
    "sb:gate:{EHR}": (gate.GATE_SECONDS,),
    "sb:gate:{EHR}:slots": (gate.GATE_SECONDS,),
    "sb:pace:app:{APP}": (bucket.KEPT_SECONDS,),
    "sb:pace:ehr:{EHR}": (bucket.KEPT_SECONDS,),
    "sb:due:{N}:EHR": (schedule.FORGOTTEN_SECONDS,),
    "sb:ends:{EHR}": (ends.KEPT_SECONDS,),
    "sb:{TAG}:untold": (untold.MARK_SECONDS,),
    "sb:untold": (untold.LIST_SECONDS,),
    "sb:swept": (gathering.SWEEP_SECONDS,),
    "sb:webhook:{ID}:event:NAME": (outbox.KEPT_SECONDS, outbox.HEARD_SECONDS),
    "sb:bulk:{EHR}:job:ID": (KEPT_SECONDS,),
    "sb:bulk:{EHR}:files:PAGE": (KEPT_SECONDS,),
    **{f"sb:bulk:{{EHR}}:{kind}:REGISTRATION": (KEPT_SECONDS,) for kind in ("jobs", "waiting", "running", "turns")},
    "sb:bulk:{EHR}:held:REGISTRATION": (LEARNED_SECONDS,),
    "sb:backend:{HASH}": (backend_grants.KNOWN_SECONDS,),
    "sb:backend:{HASH}:lease": (int(backend_grants.LEASE_SECONDS),),
    "sb:asked:{APP}": (int(backend_grants.ASKED_SECONDS),),
    "sb:launch:{HASH}": (launches.LAUNCH_SECONDS,),
    "sb:used:{APP}:NAME": (last_used.KEPT_SECONDS,),
}


def documented_records() -> dict[str, str]:
    return {code(row[0]): row[3] for row in rows(read("docs/architecture.md"), "Key | Type | Holds | Lives")}


def test_every_key_in_redis_is_documented() -> None:
    named = {keys.grant("TAG"), keys.lease("TAG"), keys.handles("TAG"), keys.launch("HASH"), keys.backend("HASH")}
    named |= {keys.backend_lease("HASH"), keys.asked("APP")}
    named |= {keys.pin("HASH"), keys.introspected("TAG"), keys.due(0, "EHR").replace("0", "N"), keys.domain("ID")}
    named |= {keys.gate("EHR"), keys.gate_slots("EHR"), keys.pace("app", "APP"), keys.pace("ehr", "EHR")}
    named |= {keys.WITNESS, keys.RESTORING, keys.UNTOLD, keys.SWEPT, keys.untold("TAG")}
    named |= {keys.ends("EHR")}
    named |= {keys.BULK_DUE, keys.bulk_job("EHR", "ID"), keys.bulk_files("EHR", "PAGE")}
    named |= {keys.bulk_list("EHR", kind, "REGISTRATION") for kind in ("jobs", "waiting", "running", "turns", "held")}
    named |= {keys.webhook_due("ID"), keys.webhook_dead("ID"), keys.webhook_event("ID", "NAME")}
    named |= {
        keys.issued("TAG", kind, "HASH")
        for kind in (
            "handle",
            "exchanged",
            "uses",
            "proof",
            "refresh",
            "ended",
            "code",
            "launch",
            "reauthorize",
            "begun",
        )
    }
    named |= {keys.sealed_key("NAME"), keys.replay("HASH"), keys.secret_used("APP", "NAME"), audit.STREAM_KEY}
    made_by = {
        name for name, value in inspect.getmembers(keys, inspect.isfunction) if value.__module__ == keys.__name__
    }

    assert made_by == {
        *("grant", "lease", "introspected", "handles", "issued", "launch", "backend", "pin", "sealed_key", "replay"),
        *("secret_used", "due", "part", "domain", "backend_lease", "asked", "gate", "gate_slots", "pace"),
        *("untold", "webhook_due", "webhook_dead", "webhook_event", "ends"),
        *("bulk_job", "bulk_files", "bulk_list"),
    }
    assert documented_records().keys() == named


@pytest.mark.parametrize(("key", "seconds"), LIVES.items())
def test_documented_lifetimes_are_those_of_the_code(key: str, seconds: tuple[int, ...]) -> None:
    assert [int(number) for number in re.findall(r"(\d+) s\b", documented_records()[key])] == list(seconds)


def test_documented_waits_at_the_gate_are_those_of_the_code() -> None:
    text = section(read("docs/architecture.md"), "## The gate")

    assert [int(number) for number in re.findall(r"(\d+) s(?:econds)?\b", text)] == [
        gate.FAILING_SECONDS,
        gate.FIRST_BREAK_SECONDS,
        gate.LONGEST_BREAK_SECONDS,
        gate.SPARE_SECONDS,
        gate.PATIENCE_SECONDS,
        gate.KNOWN_SECONDS,
    ]
    assert "three\nquarters" in text
    assert (limits.BACKGROUND_SHARE, limits.LAUNCH_SHARE) == (0.75, 0.9)


def test_documented_waits_of_a_refresh_are_those_of_the_code() -> None:
    text = section(read("docs/architecture.md"), "## Refresh")

    assert [int(number) for number in re.findall(r"(\d+) s\b", text)] == [
        sending.LEASE_SECONDS,
        renewal.WAIT_SECONDS,
        insisting.INSIST_SECONDS,
        keeper.AGAIN_SECONDS,
        renewal.SETTLE_SECONDS,
    ]
    waits = re.findall(r"for (\d+) seconds", read("docs/operations.md"))
    assert [int(number) for number in waits] == [insisting.INSIST_SECONDS] * 2


def test_documented_waits_of_webhooks_are_those_of_the_code() -> None:
    text = section(read("docs/architecture.md"), "## Telling webhooks")

    assert [int(number) for number in re.findall(r"(\d+) s\b", text)] == [
        gathering.SWEEP_SECONDS,
        gathering.LASTS_SECONDS,
        delivering.AGAIN_SECONDS,
        delivering.TRY_SECONDS,
        retries.FIRST_SECONDS,
    ]
    assert f"{retries.LONGEST_SECONDS / 3600:g} hours at most" in text
    assert f"After {retries.GIVE_UP_SECONDS / 86_400:g} days" in text
    assert f"With {outbox.MOST_WAITING} events" in text


def test_the_documented_length_of_the_audit_stream_is_the_codes() -> None:
    assert str(AUDIT_STREAM_LENGTH) in documented_records()[audit.STREAM_KEY]


def test_every_atomic_step_is_documented() -> None:
    table = {code(row[0]) for row in rows(read("docs/architecture.md"), "Script | What it does in one step")}

    assert table == {str(path.relative_to(ROOT)) for path in ROOT.glob("broker/store/lua/*.lua")}


def test_the_envelope_is_documented_as_its_module_draws_it() -> None:
    drawn = re.findall(r"^ {4}(byte.*)$", read("broker/vault/envelope.py"), re.MULTILINE)

    assert len(drawn) == 5
    assert section(read("docs/architecture.md"), "### The envelope").split("```")[1].split("\n")[1:-1] == drawn


def test_the_documented_acl_is_the_deployed_one() -> None:
    assert f"```\n{read('docs/deploy/users.acl')}```" in read("docs/operations.md")
