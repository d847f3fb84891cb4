"""
What to do with the certificates, and when: keep, renew the leaf, rotate the CA, drop an old CA, each with its reason.

`decide` is a pure function of the stored state, the wall clock and what was seen; nothing here waits or counts ticks,
so a cluster that slept or a clock that jumped is decided like any other. The order of a rotation is

1. the new CA goes into the bundle, and so into every caBundle; the old leaf is still served;
2. when the new CA has been seen there for `Settings.propagation`, it signs the new leaf;
3. when the last leaf that the old CA signed has expired and every replica had time for the new one
   (`Settings.adoption`), the old CA leaves the bundle.

At each moment every certificate that any replica may serve is vouched for by the bundle, without a list of replicas.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias, assert_never

from cryptography import x509

from certs.authority import backdate, certified_names, general_names, is_signed_by, issue_ca, issue_leaf
from certs.bundle import render_bundle
from certs.pair import Pair, fingerprint

# Two thirds of its life used, one third left for missed checks: what cert-manager does.
# https://cert-manager.io/docs/usage/certificate/#reissuance-triggered-by-expiry-renewal
RENEWAL: Final = (2, 3)
# A CA's last third must hold a whole leaf, or its last leaves would be cut short.
CA_LIFE_FACTOR: Final = 3
# Below this a lagging clock or a short outage of the API server eats the third that is left.
MIN_LEAF_LIFE: Final = timedelta(hours=1)
# Waiting must be short beside a leaf's life, or a rotation would not finish within it.
WAIT_PART: Final = 10
MIN_WAIT: Final = timedelta(seconds=1)
# A key that outlives those who know where it is protects nobody; and far dates overflow.
MAX_CA_LIFE: Final = timedelta(days=3650)
# X.509 limits a common name to 64 characters, of which `certs.authority` needs 12.
MAX_ORGANIZATION: Final = 50
NEVER: Final = timedelta(-1)
# X.509 knows no fractions of one.
SECOND: Final = timedelta(seconds=1)
# Of a bundle, which each of our webhooks holds a copy of: beyond some it could not be stored any more.
MAX_AUTHORITIES: Final = 8
# Names that a leaf before had and that nobody wants any more.
MAX_MORE_NAMES: Final = 16
# Rebuilding from nothing takes three decisions (CA, leaf, keep); more than this many is a bug.
MAX_DECISIONS: Final = 8


class Request(StrEnum):
    """What a person asks for; kept in the state until it is done."""

    LEAF = "leaf"
    CA = "ca"
    DROP_OLD = "drop-old"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """
    A CA's certificate, and how long it is needed.

    Attributes:
        certificate: Its certificate; the key of an old one is never kept.
        last_leaf_expires: When the last leaf that it signed expires; None while it has signed none.

    """

    certificate: x509.Certificate
    last_leaf_expires: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Return whether it is within its life at *now*."""
        return self.certificate.not_valid_before_utc <= now < self.certificate.not_valid_after_utc


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """
    What the replicas share. Whatever is missing or was unreadable is absent here, which is a reason to issue it anew.

    Attributes:
        authorities: Newest first; the first one signs, if its key is there.
        ca_key_pem: The key of the first authority.
        leaf: What is to be served, signed by one of the authorities.
        requests: What a person asked for and is not done yet.

    """

    authorities: tuple[Authority, ...] = ()
    ca_key_pem: bytes | None = field(default=None, repr=False)
    leaf: Pair | None = None
    requests: frozenset[Request] = frozenset()

    @property
    def bundle(self) -> bytes:
        """The PEM text that every caBundle must hold."""
        return render_bundle(authority.certificate for authority in self.authorities)

    @property
    def signing(self) -> Pair | None:
        """The CA that signs new leaves, with its key."""
        if not self.authorities or self.ca_key_pem is None:
            return None
        certificate = self.authorities[0].certificate
        return Pair(certificate=certificate, certificate_pem=render_bundle([certificate]), key_pem=self.ca_key_pem)

    @property
    def issuer(self) -> Authority | None:
        """The authority that signed the leaf."""
        if self.leaf is None:
            return None
        leaf = self.leaf.certificate
        return next((known for known in self.authorities if is_signed_by(leaf, known.certificate)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    How long certificates last and for whom they speak.

    Attributes:
        names: DNS names or IP addresses that the API server calls us by.
        organization: The `O` in every name; CAs that carry it are ours.
        ca_life: A year, so that a CA's key changes about every eight months without anybody asking.
        leaf_life: 90 days, renewed every 60: short enough to be exercised, long enough to outlast a forgotten alert.
        propagation: How long a new CA must have been seen in every caBundle before it signs; API servers learn of the
            new bundle by a watch, within a second as a rule.
        adoption: How long a new leaf must have been stored before an old CA is dropped; replicas learn of it by
            polling, every ten seconds as a rule, and serve it when they have seen its CA for `propagation` themselves.

    Raises:
        ValueError: A value is below its floor or above its ceiling; all of them at once.

    """

    names: tuple[str, ...]
    organization: str = "client-ip-webhook"
    ca_life: timedelta = timedelta(days=365)
    leaf_life: timedelta = timedelta(days=90)
    propagation: timedelta = timedelta(seconds=30)
    adoption: timedelta = timedelta(seconds=60)

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))

    def _problems(self) -> list[str]:
        problems = []
        try:
            general_names(self.names)
        except ValueError as error:
            problems.append(f"names: {error}")
        if not 0 < len(self.organization) <= MAX_ORGANIZATION:
            problems.append(f"organization: must have 1 to {MAX_ORGANIZATION} characters, not {len(self.organization)}")
        if self.leaf_life < MIN_LEAF_LIFE:
            problems.append(f"leaf_life: must be at least {MIN_LEAF_LIFE}, not {self.leaf_life}")
        if self.ca_life < self.leaf_life * CA_LIFE_FACTOR:
            problems.append(
                f"ca_life: must be at least {CA_LIFE_FACTOR} times leaf_life ({self.leaf_life * CA_LIFE_FACTOR}),"
                f" not {self.ca_life}"
            )
        if self.ca_life > MAX_CA_LIFE:
            problems.append(f"ca_life: must be at most {MAX_CA_LIFE}, not {self.ca_life}")
        problems.extend(
            f"{name}: must be at least {MIN_WAIT} and at most a tenth of leaf_life"
            f" ({self.leaf_life / WAIT_PART}), not {wait}"
            for name, wait in (("propagation", self.propagation), ("adoption", self.adoption))
            if not MIN_WAIT <= wait <= self.leaf_life / WAIT_PART
        )
        return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """
    What one replica has seen without a break, by its own stopwatch: a clock that jumps shortens no wait.

    Attributes:
        trusted_for: How long each CA, by fingerprint, has been in every caBundle of ours that exists.
        stored_for: How long each leaf, by fingerprint, has been the stored one.

    """

    trusted_for: Mapping[str, timedelta] = field(default_factory=dict)
    stored_for: Mapping[str, timedelta] = field(default_factory=dict)


NOTHING_SEEN: Final = Observation()


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing is to be done now."""

    reason: str


@dataclass(frozen=True, slots=True)
class RenewLeaf:
    """Sign a new leaf with the newest CA."""

    reason: str


@dataclass(frozen=True, slots=True)
class RotateCA:
    """Make a new CA; the ones before stay in the bundle, their keys go."""

    reason: str


@dataclass(frozen=True, slots=True)
class DropOldCA:
    """Take CAs that nothing rests on out of the bundle."""

    reason: str
    fingerprints: frozenset[str]


Action: TypeAlias = Keep | RenewLeaf | RotateCA | DropOldCA


def renewal_time(certificate: x509.Certificate) -> datetime:
    """Return when two thirds of the life of *certificate* are over."""
    used, whole = RENEWAL
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * used / whole


def decide(state: State, *, now: datetime, settings: Settings, observed: Observation = NOTHING_SEEN) -> Action:
    """
    Return the next thing to do with *state*; do it (`advance`) and ask again until the answer is Keep.

    Args:
        now: The current time on the wall clock that counts, the API server's; UTC and timezone-aware.
        observed: What this replica has seen; a replica that has just started has seen nothing.

    """
    if reason := _ca_is_due(state, now, settings):
        return RotateCA(reason)
    signing, leaf, issuer = state.authorities[0], state.leaf, state.issuer
    # Nobody can verify an unusable leaf, so waiting for a bundle would protect nothing.
    if leaf is None:
        return RenewLeaf("there is no leaf")
    if issuer is None:
        return RenewLeaf("the leaf was not signed by a CA of the bundle")
    if reason := _leaf_is_unusable(leaf, now):
        return RenewLeaf(reason)
    if issuer != signing:
        if _seen(observed.trusted_for, fingerprint(signing.certificate)) >= settings.propagation:
            return RenewLeaf("the new CA is in every caBundle")
        return Keep(f"the new CA signs after every caBundle has had it for {settings.propagation}")
    if reason := _leaf_is_due(state.requests, leaf, now, settings):
        return RenewLeaf(reason)
    return _drop_or_keep(state, leaf, now, settings, observed)


def advance(state: State, action: Action, *, now: datetime, settings: Settings) -> State:
    """Return *state* after *action*; new keys and serial numbers are random, everything else follows."""
    match action:
        case Keep():
            return state
        case RotateCA():
            ca = issue_ca(organization=settings.organization, now=now, life=settings.ca_life)
            return replace(
                state,
                authorities=(Authority(certificate=ca.certificate, last_leaf_expires=None), *_most_needed(state)),
                ca_key_pem=ca.key_pem,
                requests=state.requests - {Request.CA},
            )
        case RenewLeaf():
            return _renew(state, now, settings)
        case DropOldCA():
            return replace(
                state,
                authorities=tuple(
                    known for known in state.authorities if fingerprint(known.certificate) not in action.fingerprints
                ),
                requests=state.requests - {Request.DROP_OLD},
            )
        case _:
            assert_never(action)


def _most_needed(state: State) -> tuple[Authority, ...]:
    """Return the authorities that stay beside a new one: the oldest goes first, but not the one of the leaf."""
    kept = list(state.authorities)
    while len(kept) >= MAX_AUTHORITIES:
        kept.remove(next(known for known in reversed(kept) if known != state.issuer))
    return tuple(kept)


def lasts_longer(certificate: x509.Certificate, life: timedelta) -> bool:
    """Return whether *certificate* lasts longer than one that is issued for *life*."""
    whole = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return whole > life + backdate(life) + SECOND


def settle(
    state: State, *, now: datetime, settings: Settings, observed: Observation = NOTHING_SEEN
) -> tuple[State, tuple[Action, ...]]:
    """Return *state* with everything done that is to be done now, and what that was; the last is Keep."""
    actions: list[Action] = []
    for _ in range(MAX_DECISIONS):
        action = decide(state, now=now, settings=settings, observed=observed)
        actions.append(action)
        if isinstance(action, Keep):
            return state, tuple(actions)
        state = advance(state, action, now=now, settings=settings)
    raise AssertionError(f"the lifecycle does not settle: {actions}")


def _ca_is_due(state: State, now: datetime, settings: Settings) -> str:
    signing = state.signing
    if signing is None:
        return "there is no CA that can sign" if state.authorities else "there is no CA"
    if now < signing.not_before:
        return f"the CA is not valid before {signing.not_before.isoformat()}: the clock was set back"
    if now >= signing.not_after:
        return f"the CA expired at {signing.not_after.isoformat()}"
    if Request.CA in state.requests:
        return "a new CA was requested"
    if now >= (due := renewal_time(signing.certificate)):
        return f"the CA has used two thirds of its life since {due.isoformat()}"
    if lasts_longer(signing.certificate, settings.ca_life):
        return f"the CA lasts longer than {settings.ca_life}"
    if signing.not_after - now < settings.leaf_life:
        return f"the CA expires at {signing.not_after.isoformat()}, before a leaf of {settings.leaf_life} would"
    return ""


def _leaf_is_unusable(leaf: Pair, now: datetime) -> str:
    if now < leaf.not_before:
        return f"the leaf is not valid before {leaf.not_before.isoformat()}: the clock was set back"
    if now >= leaf.not_after:
        return f"the leaf expired at {leaf.not_after.isoformat()}"
    return ""


def _leaf_is_due(requests: frozenset[Request], leaf: Pair, now: datetime, settings: Settings) -> str:
    if Request.LEAF in requests:
        return "a new leaf was requested"
    if missing := _wanted_names(settings) - certified_names(leaf.certificate):
        return f"the leaf is not for {', '.join(sorted(missing))}"
    if lasts_longer(leaf.certificate, settings.leaf_life):
        return f"the leaf lasts longer than {settings.leaf_life}"
    if now >= (due := renewal_time(leaf.certificate)):
        return f"the leaf has used two thirds of its life since {due.isoformat()}"
    return ""


def _seen(durations: Mapping[str, timedelta], certificate: str) -> timedelta:
    return durations.get(certificate, NEVER)


def _drop_or_keep(state: State, leaf: Pair, now: datetime, settings: Settings, observed: Observation) -> Action:
    # Here the leaf is good and signed by the first authority; only the others can go.
    old = state.authorities[1:]
    asked = Request.DROP_OLD in state.requests
    going = old if asked else tuple(authority for authority in old if _is_spent(authority, now, settings))
    # Even a spent CA waits for the replicas: a clock that jumped ahead and comes back brings its leaves to life again.
    if going and _seen(observed.stored_for, leaf.fingerprint) < settings.adoption:
        return Keep(f"old CAs are dropped once the new leaf has been stored for {settings.adoption}")
    if going or asked:
        reason = "dropping old CAs was requested" if asked else "every leaf that they signed has expired"
        return DropOldCA(reason, _fingerprints(going))
    return Keep(f"the leaf is valid, and is renewed at {renewal_time(leaf.certificate).isoformat()}")


def _wanted_names(settings: Settings) -> frozenset[str]:
    return frozenset(str(name.value) for name in general_names(settings.names))


def _is_spent(authority: Authority, now: datetime, settings: Settings) -> bool:
    # What the Secret says of its leaves is believed no further than a CA of ours would last.
    if now >= authority.certificate.not_valid_before_utc + settings.ca_life + backdate(settings.ca_life) + SECOND:
        return True
    # Outside its own life a CA vouches for nothing; that is also how CAs of a clock that ran ahead go.
    last = authority.last_leaf_expires
    return last is None or now >= last or not authority.is_valid(now)


def _fingerprints(authorities: tuple[Authority, ...]) -> frozenset[str]:
    return frozenset(fingerprint(authority.certificate) for authority in authorities)


def _renew(state: State, now: datetime, settings: Settings) -> State:
    signing = state.signing
    if signing is None:
        raise ValueError("a leaf cannot be renewed without a CA")
    leaf = issue_leaf(signing, names=_names(state.leaf, settings), now=now, life=settings.leaf_life)
    first, *old = state.authorities
    # A clock that went back may have signed a longer-lived leaf before.
    last = max(leaf.not_after, first.last_leaf_expires or leaf.not_after)
    return replace(
        state,
        authorities=(replace(first, last_leaf_expires=last), *old),
        leaf=leaf,
        requests=state.requests - {Request.LEAF},
    )


def _names(before: Pair | None, settings: Settings) -> tuple[str, ...]:
    """
    Return the names of the next leaf: the wanted ones.

    Where the leaf before lacked one of them, its own too: while a release with other names is rolled out, old and new
    replicas look after the same leaf, and each would take the other's names away. The leaf after that has them no more.
    """
    known = certified_names(before.certificate) if before else frozenset()
    wanted = _wanted_names(settings)
    return (*settings.names, *(sorted(known - wanted)[:MAX_MORE_NAMES] if wanted - known else ()))
