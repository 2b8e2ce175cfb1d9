"""Whether a connection was closed by whom it leads to, or by anybody on the way."""

import asyncio
import ssl


def is_closed_by_peer(transport: asyncio.BaseTransport) -> bool:
    """Whether an ended connection was ended by the peer, who sends an alert with TLS (RFC 9112 §9.8).

    Without TLS nobody can tell, and loopback is all there is. With it, the end of the connection below says nothing:
    event loops take it for the alert, so OpenSSL is asked, which has no end to tell of unless the alert came.
    """
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return True
    try:
        return tls.read(1) == b""
    except ssl.SSLZeroReturnError:  # as well as ours, which was sent in return
        return True
    except ssl.SSLError:
        return False
