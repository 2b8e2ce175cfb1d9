"""`broker check`: everything that would stop a start, or ought to, found in one go."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer
from cryptography.x509 import load_pem_x509_certificates

from broker.app.way_out import open_egress
from broker.apps import Directory
from broker.cli import EXIT_CONFIGURATION
from broker.cli.check_keys import check_keys
from broker.cli.check_store import check_store
from broker.cli.check_webhooks import check_webhooks
from broker.cli.ehrs import method_warnings
from broker.cli.finding import Finding
from broker.cli.session import (
    DEMO_CONFIG,
    DEMO_KEY_FILE,
    ConfigOption,
    JsonOption,
    StateOption,
    open_session,
    read_deployment,
)
from broker.clock import system_clock, system_entropy
from broker.egress import Egress
from broker.ehr.documents import find_endpoints, require_callable
from broker.ehr.site import Site
from broker.errors import BrokerError, ConfigurationError
from broker.kms.moving import MovingKeys
from broker.kms.opening import open_kek, open_signing, without_signing
from broker.settings import Deployment, Settings, load
from broker.settings.proof_rules import expiring_secrets, without_proxy
from broker.settings.registration import WITH_SECRET
from broker.store.connection import NO_STORE
from broker.store.embedded import running_url
from broker.vault import Domain, LocalKeyring
from broker.vault.keyring import read_key_file

CERTIFICATE_SECONDS: Final = 30 * 86_400
"""How long before its end a certificate of the broker's own is warned of (OR-05)."""
_HANDSHAKE_SECONDS: Final = 5.0
_MOVE: Final = "once broker vault rotate --kek has moved all to the service, take BROKER_KEK or BROKER_KEK_FILE away"
_THROWAWAY: Final = b"broker check"


def check(
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="connect to nothing: files alone")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check configuration, key, store and EHRs. Exit 0 when nothing is at fault, 78 otherwise."""
    findings = asyncio.run(_check(config, state, offline=offline))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.level:<8} {finding.part:<12} {finding.text}")
    if any(finding.level == "fault" for finding in findings):
        sys.exit(EXIT_CONFIGURATION)


async def _check(config: ConfigOption, state: StateOption, *, offline: bool) -> list[Finding]:
    try:
        deployment = read_deployment(config, state)
    except ConfigurationError as error:
        return [Finding("environment", "fault", fault) for fault in error.faults]
    key_file = None
    if deployment.redis_url is None and (url := running_url(deployment.state)) is not None:  # a demo runs there
        key_file = deployment.state / DEMO_KEY_FILE
        deployment = replace(deployment, redis_url=url, config=deployment.state / DEMO_CONFIG)
    settings, findings = _settings(deployment)
    findings += [finding async for finding in _key(key_file, None if offline or settings is None else settings.tenant)]
    if not offline:
        findings += [finding async for finding in check_store(deployment.redis_url, deployment.durability)]
        if settings is not None:
            findings += [finding async for finding in _public_url(settings)]
            findings += [finding async for finding in _ehrs(settings)]
            if not any(finding.level == "fault" and finding.part in {"store", "key"} for finding in findings):
                findings += [finding async for finding in _stored_keys(deployment, key_file, settings.tenant)]
                findings += [finding async for finding in _kept(config, state)]
    elif deployment.redis_url is None:
        findings.append(Finding("store", "fault", NO_STORE))
    return findings


def _settings(deployment: Deployment) -> tuple[Settings | None, list[Finding]]:
    try:
        settings = load(deployment.config, os.environ)
    except ConfigurationError as error:
        return None, [Finding("broker.toml", "fault", fault) for fault in error.faults]
    counted = f"{len(settings.ehr)} EHRs, {len(settings.registration)} registrations, {len(settings.app)} apps"
    findings = [Finding("broker.toml", "ok", f"{deployment.config}: {counted}")]
    if settings.allow_loopback_http:
        findings.append(Finding("broker.toml", "warning", "allow_loopback_http is for a sandbox on this machine only"))
    if deployment.certificate_header is None:
        findings += [Finding("broker.toml", "fault", fault) for fault in without_proxy(settings)]
    findings += [Finding("broker.toml", "fault", fault) for fault in _unsigned(settings)]
    findings += [Finding("broker.toml", "warning", text) for text in expiring_secrets(settings, system_clock())]
    return settings, [*findings, *_registrations(settings)]


def _unsigned(settings: Settings) -> list[str]:
    try:
        return without_signing(settings.registration, open_signing(os.environ))
    except ConfigurationError:  # which the key's own finding says
        return []


def certificate_finding(whose: str, ends: float, now: float) -> Finding:
    """Tell when a certificate ends, with a warning from `CERTIFICATE_SECONDS` before; times are in seconds."""
    day = f"{datetime.fromtimestamp(ends, UTC):%Y-%m-%d}"
    if ends > now + CERTIFICATE_SECONDS:
        return Finding("certificate", "ok", f"{whose}: it ends on {day}")
    when = f"ends on {day}" if ends > now else f"ended on {day}"
    return Finding("certificate", "warning", f"{whose}: it {when}. Fix: a new one, before an EHR minds (OR-05)")


def _registrations(settings: Settings) -> Iterator[Finding]:
    """What the broker shows to EHRs; of a chain, the first to end counts."""
    for registration in settings.registration:
        if registration.certificate is None:
            continue
        whose = f"registration {registration.id}"
        try:
            chain = load_pem_x509_certificates(registration.certificate.read_bytes())
        except (OSError, ValueError) as error:
            yield Finding("certificate", "fault", f"{whose}: it cannot be read ({type(error).__name__})")
        else:
            ends = min(certificate.not_valid_after_utc for certificate in chain)
            yield certificate_finding(whose, ends.timestamp(), system_clock())


async def _public_url(settings: Settings) -> AsyncIterator[Finding]:
    """What callers see of the proxy that ends TLS: some EHRs suspend an app whose certificate has ended (OR-05)."""
    parts = urlsplit(settings.public_url)
    if parts.scheme != "https":
        return
    egress = Egress(allow_private_hosts=[parts.hostname or ""])  # the operator's own name, wherever it leads from here
    try:
        seen = await egress.handshake(settings.public_url, timeout=_HANDSHAKE_SECONDS)
    except BrokerError as error:
        yield Finding("certificate", "warning", f"public_url: it cannot be seen from here: {error.detail}")
    else:
        yield certificate_finding("public_url", seen.certificate_ends, system_clock())
    finally:
        await egress.close()


async def _key(file: Path | None, tenant: str | None) -> AsyncIterator[Finding]:
    """Look at the keyring, or have the KMS wrap and unwrap a key that is then thrown away."""
    try:
        kek = LocalKeyring(read_key_file(file)) if file else open_kek(os.environ)
    except ConfigurationError as error:
        for fault in error.faults:
            yield Finding("key", "fault", fault)
        return
    if isinstance(kek, LocalKeyring):
        yield Finding("key", "ok", f"{len(kek.keks)} on the keyring")
        return
    if isinstance(kek, MovingKeys):
        yield Finding("key", "warning", f"the keyring still unwraps; {_MOVE}")
    try:
        if tenant is None:
            yield Finding("key", "ok", "at the key-management service, which was not asked")
            return
        key = system_entropy(32)
        wrapped = await kek.wrap(Domain(tenant), key, _THROWAWAY)
        same = await kek.unwrap(Domain(tenant), wrapped, _THROWAWAY) == key
        yield Finding(
            "key",
            "ok" if same else "fault",
            f"{wrapped.kek} wraps and unwraps" if same else f"{wrapped.kek} gives another key back",
        )
    except BrokerError as error:
        yield Finding("key", "fault", f"{error.code}: {error.detail}")
    finally:
        await kek.close()


async def _stored_keys(deployment: Deployment, file: Path | None, tenant: str) -> AsyncIterator[Finding]:
    if deployment.redis_url is None:
        return
    kek = LocalKeyring(read_key_file(file)) if file else open_kek(os.environ)
    try:
        async for finding in check_keys(deployment.redis_url, kek, tenant):
            yield finding
    finally:
        await kek.close()


async def _kept(config: ConfigOption, state: StateOption) -> AsyncIterator[Finding]:
    """What the store tells: client secrets at EHRs that are over or soon will be, events that webhooks did not hear."""
    try:
        async with open_session(config, state) as broker:
            for registration in broker.directory.registrations:
                if registration.authentication in WITH_SECRET:
                    for text in await broker.client_secrets.warnings(registration):
                        yield Finding("secret", "warning", text)
            async for finding in check_webhooks(broker.settings.webhook, broker.telling.outbox):
                yield finding
    except BrokerError as error:
        yield Finding("secret", "fault", f"{error.code}: {error.detail}")


async def _ehrs(settings: Settings) -> AsyncIterator[Finding]:
    egress = open_egress(settings)
    directory = Directory(settings)
    try:
        for ehr in settings.ehr:
            for site in directory.sites(ehr) if ehr.enabled else []:
                async for finding in _site(egress, directory, site):
                    yield finding
    finally:
        await egress.close()


async def _site(egress: Egress, directory: Directory, site: Site) -> AsyncIterator[Finding]:
    try:
        found = site.apply(require_callable(egress, await find_endpoints(egress, site), unused=site.overrides))
    except BrokerError as error:
        yield Finding("ehr", "fault", f"{site.ehr}: {error.code}: {error.detail}")
        return
    yield Finding("ehr", "ok", f"{site.ehr}: token endpoint found by {found.source}")
    for text in [*found.warnings, *method_warnings(found, directory, site)]:
        yield Finding("ehr", "warning", f"{site.ehr}: {text}")
