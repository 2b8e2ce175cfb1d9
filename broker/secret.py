"""A secret is a type: it never prints, formats, pickles or serialises as itself.

`reveal()` is the only way to the text, and a test names the few modules that may call it. Everything else works with
`digest()` and `matches()`.
"""

import hashlib
import hmac
from typing import Final, NoReturn

REDACTED: Final = "Secret(•••)"


class Secret:
    """Text that must not be seen: a token, a code, a client secret, a PKCE verifier, a handle.

    Equality is constant-time. A `Secret` has no `__hash__`, so it cannot become a dictionary key or a cache key.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself. Call it only where the text is sent or sealed."""
        return self._text

    def digest(self) -> str:
        """Return the SHA-256 of the UTF-8 text as 64 hexadecimal digits."""
        return hashlib.sha256(self._text.encode()).hexdigest()

    def matches(self, text: str) -> bool:
        """Compare with presented text in constant time; text that is not Unicode (JSON can write that) is unequal."""
        return hmac.compare_digest(self._text.encode(errors="surrogatepass"), text.encode(errors="surrogatepass"))

    def __eq__(self, other: object) -> bool:
        return self.matches(other.reveal()) if isinstance(other, Secret) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return REDACTED

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return REDACTED

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied")
