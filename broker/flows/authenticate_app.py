"""An app proves who it is at `/oauth/token`, `/oauth/introspect` and `/oauth/revoke`, in one way a request.

    none                          public; PKCE instead
    client_secret_basic           a secret, in HTTP Basic only
    private_key_jwt               an assertion that it signs itself
    tls_client_auth · self_signed_tls_client_auth      its certificate
    workload_identity             a token of a trusted issuer

Which one is the app's is in `broker.toml`; a request cannot choose.
"""

from broker.apps import App, Directory
from broker.audit import AuditRecord, AuditTrail
from broker.clock import Clock
from broker.errors import BrokerError, InvalidClient, Refusal
from broker.flows.proof.client_certificate import check_certificate
from broker.flows.proof.client_secret import check_secret
from broker.flows.proof.last_used import LastUsed
from broker.flows.proof.private_key_jwt import PrivateKeyJwt
from broker.flows.proof.proof import Proof
from broker.flows.proof.workload_identity import WorkloadIdentity


class AuthenticateApp:
    """Checks an app's proof. Every failure is the same `invalid_client` outside; the audit record names the cause."""

    def __init__(
        self,
        directory: Directory,
        private_key_jwt: PrivateKeyJwt,
        workload_identity: WorkloadIdentity,
        last_used: LastUsed,
        audit: AuditTrail,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._private_key_jwt = private_key_jwt
        self._workload_identity = workload_identity
        self._last_used = last_used
        self._audit = audit
        self._clock = clock

    async def __call__(self, proof: Proof, *, request_id: str) -> App:
        """Return the app. Raises `InvalidClient` or `InvalidRequest` (OA-03), `StoreUnavailable`."""
        app = None
        try:
            client_id, secret = proof.claimed()
            app = self._directory.app(client_id)
            if app is None:
                raise InvalidClient("unknown client_id")
            await self._prove(app, proof, secret)
        except BrokerError as error:
            self._audit.record(
                AuditRecord(
                    event="app.authenticate",
                    outcome="denied" if isinstance(error, Refusal) else "failed",
                    app=app.id if app else None,
                    reason=error.detail,
                    request_id=request_id,
                )
            )
            raise
        return app

    async def _prove(self, app: App, proof: Proof, secret: str | None) -> None:
        method = app.settings.authentication
        if method == "client_secret_basic":
            known = check_secret(app, secret, now=self._clock())
            self._last_used.note(app.id, known.name)
            return
        if secret is not None or "client_secret" in proof.form:
            raise InvalidClient(f"app {app.id} authenticates by {method}, not by a secret")
        if method == "private_key_jwt":
            await self._private_key_jwt.check(app, proof)
        elif method == "workload_identity":
            await self._workload_identity.check(app, proof)
        elif proof.assertion is not None:
            raise InvalidClient(f"app {app.id} authenticates by {method}, not by an assertion")
        elif method != "none":
            check_certificate(app, proof.certificate, now=self._clock())
