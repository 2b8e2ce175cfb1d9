"""A registration's signing keys, as a whole: who may sign where, and how a new key takes over (RG-11). Pure.

    published → seen → active → retiring → retired

A new key enters the JWK Set. Once the set was fetched, or the EHR's cache must have ended, it is tried with the next
token request, and the one before it signs where it is refused. The first EHR that takes it makes it active. Each EHR is
on a key of its own: one that still caches the old set keeps the old key, which leaves only when no EHR needs it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from broker.secret import Secret

Algorithm = Literal["ES384", "RS384"]
State = Literal["published", "seen", "active", "retiring", "retired"]
LEAST_WAIT_SECONDS: Final = 300.0
"""What a JWK Set of ours is cached for by whoever keeps to `Cache-Control` (RG-05)."""
FIRST_RETRY_SECONDS: Final = 300.0
LONGEST_RETRY_SECONDS: Final = 4 * 3600.0
"""Between two trials of a key at an EHR that refuses it; each one costs one refused request more."""
LONGEST_LAG_SECONDS: Final = 7 * 86_400.0
"""A key that is taken later than this was refused for another reason than a cache."""
_RETIRED_SHOWN: Final = 5

Waits: TypeAlias = Mapping[str, float]
"""By EHR, how many seconds it may go on with a key set that it has fetched."""


@dataclass(frozen=True, slots=True)
class RingKey:
    """One key of the registration."""

    kid: str
    algorithm: Algorithm
    state: State
    since: float
    """When it came into its state, in seconds."""
    published_at: float
    private: Secret | None = None
    """The private part as PEM; None once it is retired, and where a key-management service holds it."""
    reference: str | None = None
    """What that service calls it; None once it is destroyed there."""
    public: str | None = None
    """The public part as PEM, of a key that is held there."""
    fetches: int = 0
    """How often the set was fetched while the key was waiting to be seen. By whom, nobody can know."""

    @property
    def is_live(self) -> bool:
        """Whether it is in the JWK Set."""
        return self.state != "retired"


@dataclass(frozen=True, slots=True)
class Standing:
    """What one EHR last made of the keys."""

    accepted: str = ""
    """The key that it took last; empty: the oldest that there is."""
    refused: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """How often it refused a key since it last took it, and when last."""
    lag: float = 0.0
    """How long after a key was published it still refused it, at most: its cache, as far as it is known."""


@dataclass(frozen=True, slots=True)
class Ring:
    """All keys, the oldest first, and what the EHRs make of them."""

    keys: tuple[RingKey, ...]
    standings: Mapping[str, Standing] = field(default_factory=dict)

    @property
    def live(self) -> tuple[RingKey, ...]:
        """What the JWK Set shows."""
        return tuple(key for key in self.keys if key.is_live)

    @property
    def newest(self) -> RingKey:
        """The one that is to sign everywhere."""
        return self.live[-1]

    @property
    def active(self) -> RingKey:
        """The one that signs where nothing else is known."""
        return next(key for key in reversed(self.keys) if key.state == "active")

    @property
    def is_rotating(self) -> bool:
        """Whether a new key has not become active yet."""
        return self.newest.state in {"published", "seen"}

    def standing(self, ehr: str) -> Standing:
        """Return what is known of an EHR."""
        return self.standings.get(ehr, Standing())

    def signer(self, ehr: str) -> RingKey:
        """Return the key that an EHR took last, as far as that is known."""
        accepted = self.standing(ehr).accepted
        return next((key for key in self.live if key.kid == accepted), self.live[0])

    def order(self, ehr: str, now: float) -> Sequence[RingKey]:
        """Return all keys for one request to an EHR, the one to try first first; the next is for a refusal.

        First the newest, if it was seen and is not held back by a refusal; then the one that the EHR last took.
        """
        standing = self.standing(ehr)
        known = self.signer(ehr)
        newest = self.newest
        tried = newest.state in {"seen", "active"} and now >= retry_at(standing, newest.kid)
        first = [newest, known] if tried else [known]
        return list({key.kid: key for key in (*first, *reversed(self.live))}.values())

    def heard(self, ehr: str, refused: Sequence[str], accepted: str, now: float) -> "Ring":
        """Return the ring after an EHR refused some keys and then took one; the same one if that is no news."""
        taken = next((key for key in self.live if key.kid == accepted), None)
        if taken is None or (not refused and self.signer(ehr) == taken and taken.kid not in self.standing(ehr).refused):
            return self
        before = self.standing(ehr)
        counts = {kid: (before.refused.get(kid, (0, 0.0))[0] + 1, now) for kid in refused}
        left = {kid: said for kid, said in {**before.refused, **counts}.items() if kid != accepted}
        measured = min(LONGEST_LAG_SECONDS, now - taken.published_at) if accepted in before.refused else 0.0
        lag = max(before.lag, measured)
        standing = Standing(accepted, left, lag)
        return _settled(replace(self, standings={**self.standings, ehr: standing}), now)

    def seen(self, fetches: Mapping[str, int], waits: Waits, now: float) -> "Ring":
        """Note how often each waiting key was fetched; one that was, or that no cache can hide any more, is seen."""

        def look(key: RingKey) -> RingKey:
            if key.state != "published":
                return key
            counted = replace(key, fetches=key.fetches + fetches.get(key.kid, 0))
            waited = now >= key.published_at + min(self._waits(waits).values(), default=LEAST_WAIT_SECONDS)
            return replace(counted, state="seen", since=now) if counted.fetches or waited else counted

        return replace(self, keys=tuple(map(look, self.keys)))

    def tidied(self, waits: Waits, now: float) -> "Ring":
        """Retire what no EHR needs any more, and forget what is of no use."""
        gone = {key.kid for key in self.keys if key.state == "retiring" and self._is_done(key, waits, now)}
        ring = replace(self, keys=tuple(_retired(key, now) if key.kid in gone else key for key in self.keys))
        over = [key for key in ring.keys if not key.is_live]
        old = [key for key in over if key.reference is not None or key in over[-_RETIRED_SHOWN:]]
        lags = {ehr: Standing(lag=one.lag) for ehr, one in self.standings.items() if one.lag}
        kept = self.standings if len(ring.live) > 1 else lags
        return Ring((*old, *ring.live), kept)

    def begun(self, key: RingKey) -> "Ring":
        """Return the ring with a new key in the set."""
        return replace(self, keys=(*self.keys, key))

    def without(self, kid: str, now: float) -> "Ring":
        """Return the ring with a key retired at once; raises `ValueError` when it is the only one, or unknown."""
        if kid not in {key.kid for key in self.live}:
            raise ValueError(f"there is no key {kid} in use")
        if len(self.live) == 1:
            raise ValueError(f"{kid} is the only key. Fix: broker keys rotate, and retire it then")
        ring = replace(self, keys=tuple(_retired(key, now) if key.kid == kid else key for key in self.keys))
        if all(key.state != "active" for key in ring.live):
            heir = ring.live[-1].kid
            ring = replace(ring, keys=tuple(_to(key, "active", now) if key.kid == heir else key for key in ring.keys))
        return ring

    def destroyed(self, kid: str) -> "Ring":
        """Return the ring after the service that held a retired key has destroyed it."""
        return replace(self, keys=tuple(replace(key, reference=None) if key.kid == kid else key for key in self.keys))

    def stuck(self, waits: Waits, now: float) -> Iterator[str]:
        """Yield the EHRs that still need an older key than the newest."""
        for ehr, wait in self._waits(waits).items():
            standing, newest = self.standing(ehr), self.newest
            untold = newest.kid not in standing.refused and now >= newest.published_at + wait
            if len(self.live) > 1 and standing.accepted != newest.kid and not untold:
                yield ehr

    def _is_done(self, key: RingKey, waits: Waits, now: float) -> bool:
        longest = max(self._waits(waits).values(), default=LEAST_WAIT_SECONDS)
        return now >= key.since + longest and not any(self.stuck(waits, now))

    def _waits(self, waits: Waits) -> Waits:
        return {ehr: max(wait, self.standing(ehr).lag, LEAST_WAIT_SECONDS) for ehr, wait in waits.items()}


def retry_at(standing: Standing, kid: str) -> float:
    """Return when a key may be tried again at an EHR that refused it, in seconds."""
    times, at = standing.refused.get(kid, (0, 0.0))
    return at + min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(times - 1, 16)) if times else 0.0


def changes(before: Ring, after: Ring) -> Iterator[tuple[RingKey, State | None]]:
    """Yield each key whose state changes, with the state it was in; None for a new one."""
    states = {key.kid: key.state for key in before.keys}
    for key in after.keys:
        if states.get(key.kid) != key.state:
            yield key, states.get(key.kid)


def _settled(ring: Ring, now: float) -> Ring:
    """Let the newest key be active if some EHR is on it; if none is any more, the one before it again."""
    *older, newest = ring.live
    if not older:
        return ring
    taken = any(standing.accepted == newest.kid for standing in ring.standings.values())
    states: dict[str, State] = {key.kid: "retiring" for key in older}
    if taken:
        states[newest.kid] = "active"
    else:
        states[newest.kid] = "published" if newest.state == "published" else "seen"
        states[older[-1].kid] = "active"
    return replace(ring, keys=tuple(_to(key, states.get(key.kid, key.state), now) for key in ring.keys))


def _to(key: RingKey, state: State, now: float) -> RingKey:
    return key if key.state == state else replace(key, state=state, since=now)


def _retired(key: RingKey, now: float) -> RingKey:
    return replace(key, state="retired", since=now, private=None)
