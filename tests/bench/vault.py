"""What sealing costs beside the cipher alone."""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.store.connection import connect
from broker.store.embedded import EmbeddedServer, wheel_server
from broker.vault import RecordContext, Vault
from tests.stage.vault import a_vault

ROUNDS = 5
CALLS = 4000
PLAINTEXT = os.urandom(1500)


async def measure() -> dict[str, float]:
    """Seal and open a 1.5 kB token set: microseconds each, and as a multiple of one bare AES-256-GCM decryption."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer.start(Path(folder), server=wheel_server()) as store:
        redis = connect(store.url())
        try:
            return await _measured(a_vault(redis, tenant="default"))
        finally:
            await redis.aclose()


async def _measured(vault: Vault) -> dict[str, float]:
    context = RecordContext("grant-tokens", "bench", "default", 1)
    sealed = await vault.seal(context, PLAINTEXT, ehr="epic")
    cipher, nonce = AESGCM(os.urandom(32)), os.urandom(12)
    encrypted = cipher.encrypt(nonce, PLAINTEXT, b"")

    async def bare() -> None:
        cipher.decrypt(nonce, encrypted, b"")

    bare_us = await _best(bare)
    seal_us = await _best(lambda: vault.seal(context, PLAINTEXT, ehr="epic"))
    open_us = await _best(lambda: vault.open(context, sealed))
    return {
        "bare_decrypt_us": bare_us,
        "seal_us": seal_us,
        "open_us": open_us,
        "seal_vs_bare": seal_us / bare_us,
        "open_vs_bare": open_us / bare_us,
    }


async def _best(work: Callable[[], Awaitable[object]]) -> float:
    """Return the best of some rounds, in microseconds per call."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(CALLS):
            await work()
        times.append((time.perf_counter() - began) / CALLS * 1e6)
        await asyncio.sleep(0)
    return min(times)
