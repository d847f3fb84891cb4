"""
Keeps the certificates good, on every replica at once and without a leader.

One pass reads our webhook configurations, then the Secret, decides (`certs.lifecycle`), stores what changed if nobody
else has meanwhile, patches every caBundle that differs and serves the stored leaf. Two rules make that safe:

- Configurations are read before the Secret, and a patch tests the version that was read. So a replica that was slow or
  stopped between the two can never put an older bundle over a newer one.
- A leaf is served only after it is stored, and, while the one before is still good, only after the bundle with its CA
  was seen in every webhook that calls us, for as long as API servers may need to learn of it.

A Secret that vanishes or is damaged is put back from memory, where it can be; a replica without a memory starts anew
and keeps trusted what the configurations trust of ours.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from cryptography.x509 import Certificate

from certs.bundle import is_ours
from certs.clock import AgreedClock, awake, elapsed, utc_now
from certs.injector import Trust, inject, trust_of
from certs.kube import ConflictError, KubeApi, KubeError, KubeObject, NotFoundError, RefusedError
from certs.lifecycle import (
    MAX_AUTHORITIES,
    Action,
    Authority,
    DropOldCA,
    Keep,
    Observation,
    RenewLeaf,
    Request,
    RotateCA,
    Settings,
    State,
    settle,
)
from certs.pair import Pair, fingerprint
from certs.secret import Reading, ask, read_secret, write_secret
from certs.serving import ServingCertificate

log = logging.getLogger(__name__)

# A rotation changes something in three passes at most; more in a row means that somebody else changes it back.
MAX_CHANGES_IN_A_ROW: Final = 5
# Five replicas that start at once conflict four times at most.
MAX_CONFLICTS: Final = 8
# A pause is spread by this part, so that replicas do not stay in step.
JITTER: Final = 0.1
COUNTED: Final[Mapping[type[Action], str]] = MappingProxyType(
    {RenewLeaf: "renew-leaf", RotateCA: "rotate-ca", DropOldCA: "drop-old-ca"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """
    The objects that the replicas share.

    Attributes:
        namespace: Where the Secret is.
        secret: The Secret's name.
        configurations: The names of our MutatingWebhookConfigurations.

    """

    namespace: str
    secret: str
    configurations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """
    How often a replica looks after the certificates.

    Attributes:
        interval: Between two passes: an emptied caBundle or a deleted Secret is healed within it, for two small reads.
        least: Passes that somebody wakes are never closer together.
        most: After errors the pause doubles from the least up to this, so that a new API server is met soon.
        disputed: While somebody else keeps changing what we store; two controllers must never wear etcd out.

    """

    interval: timedelta = timedelta(seconds=10)
    least: timedelta = timedelta(seconds=1)
    most: timedelta = timedelta(seconds=15)
    disputed: timedelta = timedelta(minutes=1)


DEFAULT_PACE: Final = Pace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """
    What the last pass saw and did, for metrics, readiness and people.

    Attributes:
        leaf_not_before: The stored leaf's beginning; its issue, less the backdating.
        leaf_not_after: The stored leaf's end.
        ca_not_after: The newest CA's end.
        authorities: How many CAs the bundle holds.
        trusted: Whether every webhook that calls us trusts the served leaf's CA.
        callers: How many webhooks call us.
        reason: Why nothing more is to be done now.
        problems: What was wrong with the stored Secret.
        error: What the API server did not grant.
        skew: How far this host's clock is ahead of the API server's.
        passed_at: When the last pass without an error ended, by the clock that counts.
        counts: How often since the start: renew-leaf, rotate-ca, drop-old-ca, store, restore, inject, serve, conflict.

    """

    leaf_not_before: datetime | None = None
    leaf_not_after: datetime | None = None
    ca_not_after: datetime | None = None
    authorities: int = 0
    trusted: bool = False
    callers: int = 0
    reason: str = "the first check has not finished yet"
    problems: tuple[str, ...] = ()
    error: str = ""
    skew: timedelta = timedelta()
    passed_at: datetime | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


class Rotator:
    """
    The certificates' reconciler of one replica.

    Attributes:
        status: What the last pass saw and did.

    Raises:
        ValueError: Replicas that pass at this pace could still serve an old leaf when its CA is dropped.

    """

    def __init__(
        self,
        api: KubeApi,
        serving: ServingCertificate,
        *,
        location: Location,
        settings: Settings,
        pace: Pace = DEFAULT_PACE,
        clock: Callable[[], datetime] = utc_now,
        stopwatch: Callable[[], timedelta] = elapsed,
        patience: Callable[[], timedelta] = awake,
        jitter: Callable[[], float] = random.random,
        apart: Callable[[Callable[[], Reading]], Awaitable[Reading]] = asyncio.to_thread,
    ) -> None:
        slowest = settings.propagation + 2 * pace.interval
        if settings.adoption < slowest:
            raise ValueError(
                f"adoption: must be at least propagation and two intervals ({slowest}), not {settings.adoption}"
            )
        self._api = api
        self._serving = serving
        self._location = location
        self._settings = settings
        self._pace = pace
        self._clock = AgreedClock(clock, stopwatch)
        self._patience = patience
        self._jitter = jitter
        self._apart = apart
        self._wake = asyncio.Event()
        self._remembered: State | None = None
        self._trusted_since: dict[str, timedelta] = {}
        self._stored_since: dict[str, timedelta] = {}
        self._counts: Counter[str] = Counter()
        self._changes_in_a_row = 0
        self._was_trusted = False
        self.status = Status()

    def now(self) -> datetime:
        """Return the time that counts: the API server's, once it was heard."""
        return self._clock.now()

    def healthy(self) -> bool:
        """
        Return whether a leaf is served that is within its life and was trusted by every webhook that calls us.

        Once trusted is enough: a caBundle that somebody empties is healed sooner than endpoints come and go.
        """
        return self._was_trusted and self._serving.healthy(self.now())

    def wake(self) -> None:
        """Ask for a pass soon: somebody changed one of our objects."""
        self._wake.set()

    async def run(self) -> None:
        """Pass after pass until cancelled; any error is logged and tried again."""
        failures = 0
        while True:
            self._wake.clear()
            try:
                await self.reconcile()
                failures = 0
            except KubeError as error:
                failures += 1
                log.warning("certificates could not be reconciled: %s: %s", type(error).__name__, error)
            except Exception as error:
                # What is served goes on being served; nobody may stop the server by what he writes into a Secret.
                failures += 1
                self.status = replace(self.status, error=f"{type(error).__name__}: {error}")
                log.exception("certificates could not be reconciled: this is a bug")
            await self._pause(failures)

    async def reconcile(self) -> Status:
        """
        Make one pass, again from its start while others are faster; return what it saw and did.

        Raises:
            KubeError: The API server did not grant something; what could be done without it is done.

        """
        before = self._changes()
        try:
            await self._pass_until_undisturbed()
        except KubeError as error:
            self.status = replace(self.status, error=f"{type(error).__name__}: {error}", counts=dict(self._counts))
            raise
        self._changes_in_a_row = self._changes_in_a_row + 1 if self._changes() > before else 0
        if self._changes_in_a_row == MAX_CHANGES_IN_A_ROW:
            log.warning(
                "another client keeps changing the Secret or the caBundle; trying again in %s",
                self._pace.disputed,
            )
        return self.status

    async def _pass_until_undisturbed(self) -> None:
        for _ in range(MAX_CONFLICTS - 1):
            try:
                await self._pass()
            except ConflictError:
                self._counts["conflict"] += 1
                continue
            return
        await self._pass()

    async def _pass(self) -> None:
        errors: list[KubeError] = []
        configurations = await self._read_configurations(errors)
        readable = not errors
        stored = await self._read_stored()
        self._clock.hear(self._api.server_time)
        now = self.now()
        # In a thread: what somebody wrote there is read while reviews go on.
        reading = await self._apart(lambda: read_secret(stored, organization=self._settings.organization))
        state = self._restored(reading, configurations)
        self._observe(state, self._trust(configurations) if readable else None)
        state, actions = settle(state, now=now, settings=self._settings, observed=self._observation())
        if stored is None or reading.problems or reading.remarks or state != reading.state:
            try:
                await self._store(stored, state, reading, actions)
            except ConflictError:
                raise
            except KubeError as error:
                if not reading.is_intact:
                    raise
                # What is not stored does not exist: look after what is.
                errors.append(error)
                state = reading.state
        self._remembered = state
        configurations = await self._inject(configurations, state, errors)
        trust = self._trust(configurations) if readable else None
        self._observe(state, trust)
        self._serve(state, trust, now)
        self._report(state, reading, trust, reason=actions[-1].reason, complete=not errors)
        if errors:
            raise errors[0]

    async def _read_configurations(self, errors: list[KubeError]) -> list[KubeObject]:
        found = []
        for name in self._location.configurations:
            try:
                found.append(await self._api.get_mutating_webhook_configuration(name))
            except NotFoundError:
                log.debug("the webhook configuration %s does not exist", name)
            except KubeError as error:
                # Without it nothing is known to be trusted; the Secret can be looked after all the same.
                errors.append(error)
        return found

    def _trust(self, configurations: Iterable[KubeObject]) -> Trust:
        return trust_of(configurations, self._settings.names)

    async def _read_stored(self) -> KubeObject | None:
        try:
            return await self._api.get_secret(self._location.namespace, self._location.secret)
        except NotFoundError:
            return None

    def _restored(self, reading: Reading, configurations: Iterable[KubeObject]) -> State:
        """Return what is stored; where that is damaged, what is left of it, what is remembered and still trusted."""
        stored = reading.state
        if reading.is_intact:
            return stored
        whole = stored.signing is not None and stored.leaf is not None
        base = stored if whole or self._remembered is None else self._remembered
        # Replicas may serve leaves of any of these, so all of them stay trusted; the base's own stay first.
        trusted = self._trust(configurations).authorities
        candidates = [
            *base.authorities,
            *stored.authorities,
            *(self._remembered.authorities if self._remembered else ()),
            # Nobody knows which leaves these signed, but none of them outlives its CA.
            *(
                Authority(certificate=certificate, last_leaf_expires=certificate.not_valid_after_utc)
                for certificate in sorted(trusted, key=lambda found: found.not_valid_before_utc, reverse=True)
                if is_ours(certificate, self._settings.organization)
            ),
        ]
        first_mentions = {candidate.certificate: candidate for candidate in reversed(candidates)}
        known = dict.fromkeys(candidate.certificate for candidate in candidates)
        return replace(base, authorities=tuple(first_mentions[certificate] for certificate in known)[:MAX_AUTHORITIES])

    def _observe(self, state: State, trust: Trust | None) -> None:
        """Note since when each CA is trusted everywhere and since when the leaf is stored; None is not known."""
        trusted = [
            fingerprint(authority.certificate)
            for authority in state.authorities
            if trust is not None and trust.includes(authority.certificate)
        ]
        self._trusted_since = self._since(self._trusted_since, trusted)
        self._stored_since = self._since(self._stored_since, [state.leaf.fingerprint] if state.leaf else [])

    def _since(self, before: Mapping[str, timedelta], seen: Iterable[str]) -> dict[str, timedelta]:
        return {found: before.get(found, self._patience()) for found in seen}

    def _observation(self) -> Observation:
        reading = self._patience()
        return Observation(
            trusted_for={found: reading - since for found, since in self._trusted_since.items()},
            stored_for={found: reading - since for found, since in self._stored_since.items()},
        )

    async def _store(
        self, stored: KubeObject | None, state: State, reading: Reading, actions: Sequence[Action]
    ) -> None:
        place, name = self._location.namespace, self._location.secret
        if stored is not None and stored.get("immutable"):
            raise RefusedError(f"the Secret {place}/{name} is immutable: delete it, and the webhook creates a new one")
        secret = write_secret(stored, state, namespace=place, name=name, organization=self._settings.organization)
        if stored is None:
            await self._api.create_secret(place, secret)
        else:
            await self._api.replace_secret(place, name, secret)
        self._counts["store"] += 1
        if self._remembered is not None and not reading.is_intact:
            self._counts["restore"] += 1
            log.warning("the Secret %s/%s was restored from memory", place, name)
        for problem in reading.problems:
            log.warning("the Secret %s/%s was damaged: %s", place, name, problem)
        for remark in reading.remarks:
            log.warning("the Secret %s/%s: %s", place, name, remark)
        for action in actions:
            if not isinstance(action, Keep):
                self._counts[COUNTED[type(action)]] += 1
                log.info("certificates: %s: %s", COUNTED[type(action)], action.reason)

    async def _inject(
        self, configurations: Iterable[KubeObject], state: State, errors: list[KubeError]
    ) -> list[KubeObject]:
        """Return *configurations* as they are stored after our patches."""
        current = []
        for configuration in configurations:
            try:
                patched = await inject(self._api, configuration, state.bundle, self._settings.names)
            except ConflictError:
                raise
            except KubeError as error:
                errors.append(error)
                patched = None
            if patched is not None:
                self._counts["inject"] += 1
                log.info("the caBundle of %s was restored", configuration["metadata"]["name"])
            current.append(configuration if patched is None else patched)
        return current

    def _serve(self, state: State, trust: Trust | None, now: datetime) -> None:
        leaf, issuer = state.leaf, state.issuer
        if leaf is None or issuer is None or leaf == self._serving.pair:
            return
        if not self._may_serve(leaf, issuer.certificate, trust, now):
            log.info("the new leaf is served after its CA is in every caBundle")
            return
        # By force: a leaf outside its life, which a clock must have moved to meanwhile, is still better than none.
        self._serving.replace(leaf.certificate_pem, leaf.key_pem, now=now, force=True)
        self._counts["serve"] += 1
        log.info("serving the leaf %s until %s", leaf.fingerprint[:16], leaf.not_after.isoformat())

    def _may_serve(self, leaf: Pair, issuer: Certificate, trust: Trust | None, now: datetime) -> bool:
        served = self._serving.pair
        if served is None or not self._serving.healthy(now):
            return True
        if trust is None:
            return False
        if not trust.vouches_for(served.certificate):
            return True
        since = self._trusted_since.get(fingerprint(issuer))
        if since is None:
            return False
        # Who signed it has seen the CA for long enough, but for a leaf made in haste with its CA, after a Secret was
        # lost: that one waits here.
        in_order = leaf.not_before - issuer.not_valid_before_utc >= self._settings.propagation
        return in_order or self._patience() - since >= self._settings.propagation

    def _report(
        self,
        state: State,
        reading: Reading,
        trust: Trust | None,
        *,
        reason: str,
        complete: bool,
    ) -> None:
        served = self._serving.pair
        trusted = trust is not None and served is not None and trust.vouches_for(served.certificate)
        self._was_trusted = self._was_trusted or trusted
        self.status = Status(
            leaf_not_before=state.leaf.not_before if state.leaf else None,
            leaf_not_after=state.leaf.not_after if state.leaf else None,
            ca_not_after=state.authorities[0].certificate.not_valid_after_utc if state.authorities else None,
            authorities=len(state.authorities),
            trusted=trusted,
            callers=trust.callers if trust else 0,
            reason=reason,
            problems=reading.problems + reading.remarks,
            skew=self._clock.skew,
            passed_at=self.now() if complete else self.status.passed_at,
            counts=dict(self._counts),
        )

    def _changes(self) -> int:
        return self._counts["store"] + self._counts["inject"]

    async def _pause(self, failures: int) -> None:
        """Wait for the next pass: shorter when woken, longer after errors and in a dispute."""
        pace = self._pace
        if self._changes_in_a_row >= MAX_CHANGES_IN_A_ROW:
            # Not to be woken: it is our own change, undone again, that would wake us.
            await asyncio.sleep(self._spread(pace.disputed))
            return
        await asyncio.sleep(self._spread(pace.least))
        rest = min(pace.least * 2**failures, pace.most) if failures else pace.interval
        try:
            async with asyncio.timeout(self._spread(rest - pace.least)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _spread(self, pause: timedelta) -> float:
        """Return *pause* in seconds, a little longer by chance, so that replicas do not stay in step."""
        return pause.total_seconds() * (1 + JITTER * self._jitter())


async def request(api: KubeApi, location: Location, requests: frozenset[Request]) -> None:
    """
    Note *requests* in the Secret; the replicas do them as they come by.

    Raises:
        KubeError: The API server did not grant it; NotFound where no replica has stored a Secret yet.

    """
    for _ in range(MAX_CONFLICTS - 1):
        try:
            await _request_once(api, location, requests)
        except ConflictError:
            continue
        return
    await _request_once(api, location, requests)


async def _request_once(api: KubeApi, location: Location, requests: frozenset[Request]) -> None:
    stored = await api.get_secret(location.namespace, location.secret)
    await api.replace_secret(location.namespace, location.secret, ask(stored, requests))
