"""RSA keys of the broker's size, made and checked once: OpenSSL takes a tenth of a second for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import load_pem_private_key

KEPT: Final = 8
"""How many keys there are: so many made in a row are different ones, which is more than a stage asks for."""
BITS: Final = 3072


@contextmanager
def rsa_keys_made_once() -> Iterator[None]:
    """Let joserfc hand out the same few keys again and again; no test asks more of a key than that it is another."""
    numbers = count()

    @cache
    def kept(_number: int) -> RSAPrivateKey:
        return generate_private_key(65537, BITS)

    def made(size: int) -> RSAPrivateKey:
        return kept(next(numbers) % KEPT) if size == BITS else generate_private_key(65537, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("joserfc._rfc7518.rsa_key.RSABinding.generate_private_key", staticmethod(made))
        patch.setattr("joserfc._rfc7517.pem.load_pem_private_key", cache(load_pem_private_key))
        yield
