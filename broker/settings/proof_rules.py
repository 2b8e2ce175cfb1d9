"""Faults and warnings about how apps prove who they are, as of now."""

from collections.abc import Iterator
from typing import Final

from broker.settings.issuer import IssuerSettings
from broker.settings.model import Settings
from broker.settings.proof import CERTIFICATE_METHODS, MOST_SECRET_DAYS, SOON_DAYS, Workload
from broker.settings.rules import Fault

_DAY: Final = 86400


def find_proof_faults(settings: Settings, now: float) -> Iterator[Fault]:
    """Yield each fault; `now` is in seconds. A secret that has expired is none: the app is refused, the others work."""
    issuers = {issuer.id: issuer for issuer in settings.issuer}
    for index, app in enumerate(settings.app):
        for number, secret in enumerate(app.secret):
            if secret.expires_at > now + MOST_SECRET_DAYS * _DAY:
                text = f"is more than {MOST_SECRET_DAYS} days ahead. Fix: a nearer date, and a new secret before it"
                yield ("app", index, "secret", number, "expires"), text
        if app.workload is not None:
            for key, text in _workload(app.workload, issuers):
                yield ("app", index, "workload", key), text


def _workload(workload: Workload, issuers: dict[str, IssuerSettings]) -> Iterator[tuple[str, str]]:
    issuer = issuers.get(workload.issuer)
    if issuer is None:
        yield "issuer", f"there is no issuer {workload.issuer!r}; defined: {', '.join(sorted(issuers)) or 'none'}"
    elif issuer.trust_domain and not workload.subject.startswith(f"spiffe://{issuer.trust_domain}/"):
        yield "subject", f"is no SPIFFE ID of the trust domain {issuer.trust_domain}"


def without_proxy(settings: Settings) -> Iterator[str]:
    """Yield a fault for each app that authenticates by certificate, for a process that no proxy passes one on to."""
    for app in settings.app:
        if app.authentication in CERTIFICATE_METHODS:
            fix = "set BROKER_CLIENT_CERTIFICATE_HEADER and BROKER_FORWARDED_ALLOW_IPS"
            yield f"app {app.id} authenticates by {app.authentication}, and no proxy is declared. Fix: {fix}"


def expiring_secrets(settings: Settings, now: float) -> Iterator[str]:
    """Yield what to tell an operator of secrets that have expired, or will within days."""
    for app in settings.app:
        for secret in app.secret:
            days = (secret.expires_at - now) / _DAY
            if days <= 0:
                yield f"app {app.id}: secret {secret.name} has expired. Fix: broker apps secret"
            elif days < SOON_DAYS:
                yield f"app {app.id}: secret {secret.name} expires in {days:.0f} days. Fix: broker apps secret"
