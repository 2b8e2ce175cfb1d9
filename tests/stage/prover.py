"""An app that holds a key, and proves it with every request (RFC 9449). It knows nothing of the broker."""

import base64
import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.stage.app import App


@dataclass
class Prover(App):
    """A client of the broker that uses DPoP."""

    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    nonce: str | None = None

    def proof(self, method: str, url: str, *, token: str | None = None, key: ECKey | None = None, **claims: Any) -> str:
        """Sign a proof; `claims` replace members, or remove them (None)."""
        signing = key or self.key
        hashed = base64.urlsafe_b64encode(hashlib.sha256((token or "").encode()).digest()).rstrip(b"=").decode()
        good = {
            "jti": str(uuid.uuid4()),
            "htm": method,
            "htu": url.partition("?")[0],
            "iat": int(time.time()),
            "ath": hashed if token else None,
            "nonce": self.nonce,
            **claims,
        }
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": signing.as_dict(private=False)}
        return jwt.encode(header, {name: value for name, value in good.items() if value is not None}, signing)

    async def token(self, *, proofs: Sequence[str] | None = None, **form: str) -> httpx2.Response:
        """Ask the token endpoint, with a proof unless told otherwise."""
        endpoint = self.base.rpartition("/fhir/")[0] + "/oauth/token"
        shown = [self.proof("POST", endpoint)] if proofs is None else proofs
        if self.auth is None:
            form.setdefault("client_id", self.client_id)
        return await self.http.post(
            endpoint,
            data=form,
            auth=self.auth or httpx2.USE_CLIENT_DEFAULT,
            headers=[("DPoP", proof) for proof in shown],
        )

    async def fhir(
        self,
        handle: str,
        path: str,
        *,
        method: str = "GET",
        scheme: str = "DPoP",
        proofs: Sequence[str] | None = None,
        **options: Any,
    ) -> httpx2.Response:
        """Call FHIR, with a proof unless told otherwise."""
        url = f"{self.base}/{path}"
        shown = [self.proof(method, url, token=handle)] if proofs is None else proofs
        headers = [("Authorization", f"{scheme} {handle}"), *(("DPoP", proof) for proof in shown)]
        return await self.http.request(method, url, headers=headers, **options)

    @property
    def thumbprint(self) -> str:
        """The thumbprint of its key (RFC 7638)."""
        return str(self.key.thumbprint())

    @property
    def origin(self) -> str:
        """Where the broker is."""
        return "{0.scheme}://{0.netloc}".format(urlsplit(self.base))
