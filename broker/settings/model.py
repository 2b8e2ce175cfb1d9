"""The whole of `broker.toml`. Every default that matters for safety is written out beside its key."""

from broker.settings.app import AppSettings
from broker.settings.ehr import EhrSettings
from broker.settings.fields import BaseUrl, Identifier, PrivateHost, Table
from broker.settings.issuer import IssuerSettings
from broker.settings.registration import RegistrationSettings
from broker.settings.webhook import WebhookSettings


class Settings(Table):
    """The whole of `broker.toml`, checked."""

    public_url: BaseUrl
    """Where apps and EHRs reach the broker; FHIR bases, redirect URIs and JWKS URLs are built from it."""
    tenant: Identifier = "default"
    allow_loopback_http: bool = False
    """Accept `http://` for loopback hosts, for a sandbox on this machine. Any other `http://` URL is always refused."""
    allow_private_hosts: tuple[PrivateHost, ...] = ()
    """Names and addresses of hosts that may be reached at private addresses; any other such address is refused."""
    dpop_nonce: bool = False
    """Demand the broker's nonce in every DPoP proof of an app: then none can be made ahead of time (RFC 9449 §8)."""
    ehr_catalogs: tuple[str, ...] = ()
    """Files that `broker ehrs import` writes, relative to this one. Their EHRs are disabled until enabled there."""
    ehr: tuple[EhrSettings, ...]
    registration: tuple[RegistrationSettings, ...]
    app: tuple[AppSettings, ...] = ()
    issuer: tuple[IssuerSettings, ...] = ()
    webhook: tuple[WebhookSettings, ...] = ()
