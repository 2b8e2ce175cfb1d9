"""The way out, as `broker.toml` says."""

from collections.abc import Iterator

from broker.egress import ClientCertificate, Egress, HostTls
from broker.settings import EhrSettings, Settings


def open_egress(settings: Settings) -> Egress:
    """Return the way out to all EHRs, key sets and webhooks; the caller closes it."""
    return Egress(
        allow_loopback_http=settings.allow_loopback_http,
        allow_private_hosts=settings.allow_private_hosts,
        hosts={host: tls for ehr in settings.ehr if ehr.enabled for host, tls in _tls_of(ehr)},
    )


def _tls_of(ehr: EhrSettings) -> Iterator[tuple[str, HostTls]]:
    if not any(ehr.tls_files):
        return
    certificate, key = ehr.certificate, ehr.certificate_key
    identity = ClientCertificate(certificate, key) if certificate is not None and key is not None else None
    for host in ehr.hosts:
        yield host, HostTls(ehr.ca_file, identity)
