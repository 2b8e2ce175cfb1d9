"""The way out: every request the broker sends goes through here, and httpx2 is imported nowhere else.

Spelled out although most are the library's defaults: no redirects are followed, no proxy or netrc is taken from the
environment, no cookies are kept, certificates and host names are checked, plain http goes only to loopback and only if
allowed, connections go to public addresses and to what the operator named, and every wait and every answer has a limit.
"""

from broker.egress.addresses import kind_of, literal
from broker.egress.connecting import Handshake
from broker.egress.egress import (
    ANSWER_BYTES,
    CONNECT_SECONDS,
    Answer,
    Egress,
    StreamedAnswer,
)
from broker.egress.packing import Unpacker, packing_of, unpacked
from broker.egress.trust import ClientCertificate, HostTls

__all__ = [
    "ANSWER_BYTES",
    "CONNECT_SECONDS",
    "Answer",
    "ClientCertificate",
    "Egress",
    "Handshake",
    "HostTls",
    "StreamedAnswer",
    "Unpacker",
    "kind_of",
    "literal",
    "packing_of",
    "unpacked",
]
