"""What every back end of key-encryption keys has to keep, whatever it is. A subclass says how to get at one."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import pytest

from broker.errors import KeyRefused, KeyUnavailable, SealBroken
from broker.vault import Domain, KeyEncryptionKeys, WrappedKey

KEY = bytes(range(32))
BOUND = b"key id"
Damage = Callable[[bytes], bytes]
_numbers = itertools.count()


def new_domain() -> Domain:
    """Return a domain that no test has used."""
    return Domain("default", f"ehr-{next(_numbers)}")


class Contract(ABC):
    """The tests. `kek` is a fixture of the subclass."""

    @abstractmethod
    def fail(self, kek: KeyEncryptionKeys) -> None:
        """Let the back end answer no more."""

    @abstractmethod
    def refuse(self, kek: KeyEncryptionKeys, domain: Domain) -> None:
        """Let the back end say no to this domain's key."""

    async def test_what_was_wrapped_unwraps(self, kek: KeyEncryptionKeys) -> None:
        domain = new_domain()
        wrapped = await kek.wrap(domain, KEY, BOUND)

        assert await kek.unwrap(domain, wrapped, BOUND) == KEY
        assert wrapped.kek == await kek.current(domain)
        assert KEY not in wrapped.blob

    async def test_a_tenants_own_key_is_another_one(self, kek: KeyEncryptionKeys) -> None:
        wrapped = await kek.wrap(Domain("default"), KEY, BOUND)

        assert await kek.unwrap(Domain("default"), wrapped, BOUND) == KEY
        with pytest.raises((SealBroken, KeyRefused)):
            await kek.unwrap(new_domain(), wrapped, BOUND)

    async def test_it_unwraps_for_nothing_else(self, kek: KeyEncryptionKeys) -> None:
        domain = new_domain()
        wrapped = await kek.wrap(domain, KEY, BOUND)

        with pytest.raises(SealBroken):
            await kek.unwrap(domain, wrapped, b"another key id")

    async def test_it_unwraps_for_no_other_domain(self, kek: KeyEncryptionKeys) -> None:
        domain, other = new_domain(), new_domain()
        wrapped = await kek.wrap(domain, KEY, BOUND)
        await kek.wrap(other, KEY, BOUND)

        with pytest.raises((SealBroken, KeyRefused)):
            await kek.unwrap(other, wrapped, BOUND)

    @pytest.mark.parametrize("damage", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b[:20], lambda _: b""])
    async def test_what_was_damaged_does_not_unwrap(self, kek: KeyEncryptionKeys, damage: Damage) -> None:
        domain = new_domain()
        wrapped = await kek.wrap(domain, KEY, BOUND)

        with pytest.raises(SealBroken):
            await kek.unwrap(domain, replace(wrapped, blob=damage(wrapped.blob)), BOUND)

    async def test_what_another_back_end_wrapped_cannot_be_had(self, kek: KeyEncryptionKeys) -> None:
        with pytest.raises(KeyUnavailable) as raised:
            await kek.unwrap(new_domain(), WrappedKey("elsewhere:key:1", b"\0" * 60), BOUND)

        assert "elsewhere:key:1" in raised.value.detail

    async def test_what_an_earlier_version_wrapped_still_unwraps(self, kek: KeyEncryptionKeys) -> None:
        domain = new_domain()
        earlier = await kek.wrap(domain, KEY, BOUND)
        newest = await kek.rotate(domain)
        later = await kek.wrap(domain, KEY, BOUND)

        assert await kek.unwrap(domain, earlier, BOUND) == KEY
        assert await kek.unwrap(domain, later, BOUND) == KEY
        assert later.kek == newest == await kek.current(domain)

    async def test_a_back_end_that_does_not_answer_is_not_a_refusal(self, kek: KeyEncryptionKeys) -> None:
        domain = new_domain()
        wrapped = await kek.wrap(domain, KEY, BOUND)
        self.fail(kek)

        for ask in (
            lambda: kek.unwrap(domain, wrapped, BOUND), lambda: kek.wrap(domain, KEY, BOUND),
            lambda: kek.current(domain), lambda: kek.rotate(domain), lambda: kek.destroy(domain), kek.check,
        ):  # fmt: skip
            with pytest.raises(KeyUnavailable) as raised:
                await ask()
            assert type(raised.value) is KeyUnavailable

    async def test_a_key_that_is_denied_is_refused(self, kek: KeyEncryptionKeys) -> None:
        domain = new_domain()
        wrapped = await kek.wrap(domain, KEY, BOUND)
        self.refuse(kek, domain)

        with pytest.raises(KeyRefused):
            await kek.unwrap(domain, wrapped, BOUND)
        with pytest.raises(KeyRefused):
            await kek.wrap(domain, KEY, BOUND)

    async def test_what_a_destroyed_key_wrapped_is_gone(self, kek: KeyEncryptionKeys) -> None:
        domain, other = new_domain(), new_domain()
        wrapped, kept = await kek.wrap(domain, KEY, BOUND), await kek.wrap(other, KEY, BOUND)
        await kek.rotate(domain)
        destroyed = await kek.destroy(domain)

        assert destroyed != ()
        with pytest.raises(KeyRefused):
            await kek.unwrap(domain, wrapped, BOUND)
        assert await kek.unwrap(other, kept, BOUND) == KEY

    async def test_destroying_again_says_the_same(self, kek: KeyEncryptionKeys) -> None:
        domain = new_domain()
        await kek.wrap(domain, KEY, BOUND)

        first, second = await kek.destroy(domain), await kek.destroy(domain)
        assert {one.kek for one in first} == {one.kek for one in second}

    async def test_an_ehr_that_comes_back_gets_a_new_key(self, kek: KeyEncryptionKeys) -> None:
        domain = new_domain()
        before = await kek.wrap(domain, KEY, BOUND)
        await kek.destroy(domain)
        after = await kek.wrap(domain, KEY, BOUND)

        assert await kek.unwrap(domain, after, BOUND) == KEY
        with pytest.raises((KeyRefused, SealBroken)):
            await kek.unwrap(domain, before, BOUND)

    async def test_it_says_when_it_can_be_used(self, kek: KeyEncryptionKeys) -> None:
        await kek.check()
