"""Keep, renew, rotate or drop: each boundary from both sides, and the order of a rotation."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings as budget, strategies as st

from certs.authority import certified_names, is_signed_by
from certs.bundle import parse_bundle
from certs.lifecycle import (
    MAX_AUTHORITIES,
    NOTHING_SEEN,
    Action,
    DropOldCA,
    Keep,
    Observation,
    RenewLeaf,
    Request,
    RotateCA,
    Settings,
    State,
    advance,
    decide,
    renewal_time,
    settle,
)
from certs.pair import fingerprint

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
SETTINGS = Settings(names=("webhook.example.svc", "10.0.0.1"))


def new_state(now: datetime = NOW, settings: Settings = SETTINGS) -> State:
    return settle(State(), now=now, settings=settings)[0]


FRESH = new_state()
LEAF_DUE = NOW - HOUR + (90 * DAY + HOUR) * 2 / 3
CA_DUE = NOW - HOUR + (365 * DAY + HOUR) * 2 / 3


def seen(state: State, *, trusted_for: timedelta = 30 * SECOND, stored_for: timedelta = timedelta()) -> Observation:
    return Observation(
        trusted_for={fingerprint(known.certificate): trusted_for for known in state.authorities},
        stored_for={state.leaf.fingerprint: stored_for} if state.leaf else {},
    )


def kinds(actions: tuple[Action, ...]) -> list[str]:
    return [type(action).__name__ for action in actions]


def in_rotation(now: datetime = NOW) -> State:
    """A new CA is in the bundle, the old leaf is served."""
    return advance(FRESH, RotateCA(""), now=now, settings=SETTINGS)


def rotated(now: datetime = NOW) -> State:
    """The new CA's leaf is stored, the old CA still in the bundle."""
    return advance(in_rotation(now), RenewLeaf(""), now=now, settings=SETTINGS)


def test_from_nothing_come_a_ca_and_a_leaf() -> None:
    state, actions = settle(State(), now=NOW, settings=SETTINGS)
    assert actions == (
        RotateCA("there is no CA"),
        RenewLeaf("there is no leaf"),
        Keep("the leaf is valid, and is renewed at 2027-01-22T11:40:00+00:00"),
    )
    assert state.leaf is not None
    assert state.issuer == state.authorities[0]
    assert state.authorities[0].last_leaf_expires == state.leaf.not_after
    assert certified_names(state.leaf.certificate) == set(SETTINGS.names)
    assert parse_bundle(state.bundle).certificates == (state.authorities[0].certificate,)


def test_keys_are_never_shown() -> None:
    assert "PRIVATE" not in repr(FRESH)


@pytest.mark.parametrize(
    ("now", "want"),
    [
        pytest.param(NOW, Keep, id="just issued"),
        pytest.param(LEAF_DUE - SECOND, Keep, id="ALMOST nearing expiry"),
        pytest.param(LEAF_DUE, RenewLeaf, id="JUST nearing expiry"),
        pytest.param(NOW + 90 * DAY - SECOND, RenewLeaf, id="ALMOST expired"),
        pytest.param(NOW + 90 * DAY, RenewLeaf, id="JUST expired"),
        pytest.param(CA_DUE - SECOND, RenewLeaf, id="the CA is ALMOST nearing expiry"),
        pytest.param(CA_DUE, RotateCA, id="the CA is JUST nearing expiry"),
        pytest.param(NOW + 365 * DAY, RotateCA, id="the CA has JUST expired"),
        pytest.param(NOW + 400 * DAY, RotateCA, id="the clock jumped 400 days ahead"),
        pytest.param(NOW - HOUR, Keep, id="the clock lags by what was backdated"),
        pytest.param(NOW - HOUR - SECOND, RotateCA, id="the clock lags by JUST more"),
        pytest.param(NOW - 400 * DAY, RotateCA, id="the clock jumped 400 days back"),
    ],
)
def test_time_alone_decides(now: datetime, want: type[Action]) -> None:
    action = decide(FRESH, now=now, settings=SETTINGS, observed=seen(FRESH, trusted_for=DAY))
    assert type(action) is want
    assert action.reason


def test_each_reason_says_what_and_since_when() -> None:
    def reason(state: State, now: datetime) -> str:
        return decide(state, now=now, settings=SETTINGS).reason

    assert FRESH.leaf is not None
    assert reason(FRESH, LEAF_DUE) == "the leaf has used two thirds of its life since 2027-01-22T11:40:00+00:00"
    assert reason(FRESH, NOW + 90 * DAY) == "the leaf expired at 2027-02-21T12:00:00+00:00"
    assert reason(FRESH, CA_DUE) == "the CA has used two thirds of its life since 2027-07-24T19:40:00+00:00"
    assert reason(FRESH, NOW + 365 * DAY) == "the CA expired at 2027-11-23T12:00:00+00:00"
    assert reason(FRESH, NOW - DAY) == "the CA is not valid before 2026-11-23T11:00:00+00:00: the clock was set back"
    assert reason(replace(FRESH, ca_key_pem=None), NOW) == "there is no CA that can sign"
    assert reason(replace(FRESH, leaf=None), NOW) == "there is no leaf"
    assert reason(replace(FRESH, leaf=new_state().leaf), NOW) == "the leaf was not signed by a CA of the bundle"


def test_two_thirds_of_a_life_are_counted_from_its_beginning() -> None:
    assert FRESH.leaf is not None
    assert renewal_time(FRESH.leaf.certificate) == LEAF_DUE
    assert renewal_time(FRESH.authorities[0].certificate) == CA_DUE


def test_a_leaf_not_valid_yet_is_renewed_by_a_ca_that_is() -> None:
    early = new_state(NOW - 10 * DAY)
    ahead = advance(early, RenewLeaf(""), now=NOW, settings=SETTINGS)
    action = decide(ahead, now=NOW - 5 * DAY, settings=SETTINGS)
    assert action == RenewLeaf("the leaf is not valid before 2026-11-23T11:00:00+00:00: the clock was set back")


def test_a_longer_lived_leaf_of_before_keeps_its_ca_needed() -> None:
    """The clock ran ahead when it was signed; replicas may serve it still."""
    early = new_state(NOW - 10 * DAY)
    ahead = advance(early, RenewLeaf(""), now=NOW, settings=SETTINGS)
    back = advance(ahead, RenewLeaf(""), now=NOW - 5 * DAY, settings=SETTINGS)
    assert back.authorities[0].last_leaf_expires == NOW + 90 * DAY


def test_a_ca_that_would_cut_its_leaves_short_is_rotated() -> None:
    """Only where leaf_life was raised since: the floors forbid it otherwise."""
    much = replace(SETTINGS, leaf_life=300 * DAY, ca_life=900 * DAY)
    assert decide(FRESH, now=NOW + 65 * DAY + SECOND, settings=much) == RotateCA(
        "the CA expires at 2027-11-23T12:00:00+00:00, before a leaf of 300 days, 0:00:00 would"
    )
    assert type(decide(FRESH, now=NOW + 30 * DAY, settings=much)) is Keep


@pytest.mark.parametrize(
    ("names", "want"),
    [
        pytest.param(("10.0.0.1", "webhook.example.svc"), Keep, id="another order"),
        pytest.param(("webhook.example.svc",), Keep, id="one less"),
        pytest.param(("webhook.example.svc", "10.0.0.1", "::1"), RenewLeaf, id="one more"),
        pytest.param(("::1",), RenewLeaf, id="another"),
    ],
)
def test_a_name_that_the_leaf_lacks_needs_another_leaf(names: tuple[str, ...], want: type[Action]) -> None:
    action = decide(FRESH, now=NOW, settings=replace(SETTINGS, names=names))
    assert type(action) is want
    if want is RenewLeaf:
        assert action.reason == "the leaf is not for ::1"


def test_releases_with_other_names_share_a_leaf_while_one_replaces_the_other() -> None:
    """Each would take the other's names away, for as long as both run."""
    new = replace(SETTINGS, names=("new.example.svc",))
    shared, actions = settle(FRESH, now=NOW, settings=new)
    assert kinds(actions) == ["RenewLeaf", "Keep"]
    assert shared.leaf is not None
    assert certified_names(shared.leaf.certificate) == {*SETTINGS.names, *new.names}
    for settings in (SETTINGS, new):
        assert settle(shared, now=NOW, settings=settings)[0] is shared
    later, _ = settle(shared, now=LEAF_DUE, settings=new)
    assert later.leaf is not None
    assert certified_names(later.leaf.certificate) == set(new.names)


class TestRotation:
    """First the bundle, second the leaf, last the old CA leaves."""

    def test_the_new_ca_joins_the_bundle_and_the_old_leaf_stays(self) -> None:
        state = in_rotation()
        assert state.leaf == FRESH.leaf
        assert state.authorities[1:] == FRESH.authorities
        assert state.ca_key_pem != FRESH.ca_key_pem
        assert state.authorities[0].last_leaf_expires is None
        assert len(parse_bundle(state.bundle).certificates) == 2

    @pytest.mark.parametrize(
        ("trusted_for", "want"),
        [
            pytest.param(None, Keep, id="not seen"),
            pytest.param(timedelta(), Keep, id="JUST seen"),
            pytest.param(30 * SECOND - timedelta(milliseconds=1), Keep, id="seen for ALMOST long enough"),
            pytest.param(30 * SECOND, RenewLeaf, id="seen for JUST long enough"),
        ],
    )
    def test_the_new_ca_signs_when_it_was_seen_everywhere(
        self, trusted_for: timedelta | None, want: type[Action]
    ) -> None:
        state = in_rotation()
        observed = NOTHING_SEEN if trusted_for is None else seen(state, trusted_for=trusted_for)
        action = decide(state, now=NOW, settings=SETTINGS, observed=observed)
        assert type(action) is want
        assert action.reason == (
            "the new CA is in every caBundle"
            if want is RenewLeaf
            else "the new CA signs after every caBundle has had it for 0:00:30"
        )

    def test_nobody_waits_with_a_leaf_that_is_no_good(self) -> None:
        state = in_rotation()
        assert type(decide(state, now=NOW + 90 * DAY - SECOND, settings=SETTINGS)) is Keep
        assert type(decide(state, now=NOW + 90 * DAY, settings=SETTINGS)) is RenewLeaf

    @pytest.mark.parametrize(
        ("now", "stored_for", "want"),
        [
            pytest.param(NOW, DAY, Keep, id="at once"),
            pytest.param(NOW + 90 * DAY - SECOND, DAY, Keep, id="its last leaf has ALMOST expired"),
            pytest.param(NOW + 90 * DAY, 60 * SECOND, DropOldCA, id="its last leaf has JUST expired"),
            pytest.param(NOW + 90 * DAY, 59 * SECOND, Keep, id="its replicas ALMOST had time for the new leaf"),
        ],
    )
    def test_the_old_ca_goes_when_its_last_leaf_has_expired(
        self, now: datetime, stored_for: timedelta, want: type[Action]
    ) -> None:
        state = rotated()
        # Renewed meanwhile, so that nothing but the old CA is to be decided on.
        state = advance(state, RenewLeaf(""), now=now, settings=SETTINGS)
        action = decide(state, now=now, settings=SETTINGS, observed=seen(state, stored_for=stored_for))
        assert type(action) is want
        if isinstance(action, DropOldCA):
            after = advance(state, action, now=now, settings=SETTINGS)
            assert after.authorities == state.authorities[:1]
            assert after.leaf == state.leaf
            assert type(decide(after, now=now, settings=SETTINGS)) is Keep

    def test_a_ca_that_signed_nothing_goes_with_the_first_leaf_of_the_next(self) -> None:
        twice = advance(in_rotation(), RotateCA(""), now=NOW, settings=SETTINGS)
        assert type(decide(twice, now=NOW, settings=SETTINGS)) is Keep
        state, actions = settle(twice, now=NOW, settings=SETTINGS, observed=seen(twice))
        assert kinds(actions) == ["RenewLeaf", "Keep"]
        state, actions = settle(state, now=NOW, settings=SETTINGS, observed=seen(state, stored_for=60 * SECOND))
        assert kinds(actions) == ["DropOldCA", "Keep"]
        assert state.authorities[1:] == FRESH.authorities

    def test_cas_of_a_clock_that_ran_ahead_go(self) -> None:
        ahead, _ = settle(FRESH, now=NOW + 400 * DAY, settings=SETTINGS)
        ahead, _ = settle(ahead, now=NOW + 400 * DAY, settings=SETTINGS, observed=seen(ahead, stored_for=60 * SECOND))
        assert len(ahead.authorities) == 1
        back, actions = settle(ahead, now=NOW, settings=SETTINGS)
        assert kinds(actions) == ["RotateCA", "RenewLeaf", "Keep"]
        assert back.leaf is not None
        assert back.leaf.not_after == NOW + 90 * DAY
        back, actions = settle(back, now=NOW, settings=SETTINGS, observed=seen(back, stored_for=60 * SECOND))
        assert kinds(actions) == ["DropOldCA", "Keep"]
        assert len(back.authorities) == 1

    def test_a_clock_that_comes_back_at_once_finds_the_old_ca_trusted(self) -> None:
        ahead, actions = settle(FRESH, now=NOW + 400 * DAY, settings=SETTINGS)
        assert kinds(actions) == ["RotateCA", "RenewLeaf", "Keep"]
        assert actions[-1] == Keep("old CAs are dropped once the new leaf has been stored for 0:01:00")
        back, _ = settle(ahead, now=NOW, settings=SETTINGS)
        assert FRESH.authorities[0] in back.authorities


class TestRequests:
    """What a person asks for is done once."""

    def test_a_new_leaf(self) -> None:
        asked = replace(FRESH, requests=frozenset({Request.LEAF}))
        state, actions = settle(asked, now=NOW, settings=SETTINGS)
        assert actions[0] == RenewLeaf("a new leaf was requested")
        assert (kinds(actions), state.requests) == (["RenewLeaf", "Keep"], frozenset())
        assert state.authorities == FRESH.authorities
        assert state.leaf != FRESH.leaf

    def test_a_new_ca_brings_a_new_leaf_in_its_order(self) -> None:
        asked = replace(FRESH, requests=frozenset({Request.CA}))
        state, actions = settle(asked, now=NOW, settings=SETTINGS)
        assert actions[0] == RotateCA("a new CA was requested")
        assert (kinds(actions), state.requests, state.leaf) == (["RotateCA", "Keep"], frozenset(), FRESH.leaf)
        state, actions = settle(state, now=NOW, settings=SETTINGS, observed=seen(state))
        assert kinds(actions) == ["RenewLeaf", "Keep"]
        assert len(state.authorities) == 2

    def test_a_compromised_ca_goes_when_every_replica_had_time_for_the_new_leaf(self) -> None:
        asked = replace(FRESH, requests=frozenset({Request.CA, Request.DROP_OLD}))
        state, _ = settle(asked, now=NOW, settings=SETTINGS)
        assert state.requests == {Request.DROP_OLD}
        state, actions = settle(state, now=NOW, settings=SETTINGS, observed=seen(state))
        assert actions[-1] == Keep("old CAs are dropped once the new leaf has been stored for 0:01:00")
        almost = seen(state, stored_for=60 * SECOND - timedelta(milliseconds=1))
        assert type(decide(state, now=NOW, settings=SETTINGS, observed=almost)) is Keep
        just = seen(state, stored_for=60 * SECOND)
        state, actions = settle(state, now=NOW, settings=SETTINGS, observed=just)
        assert actions[0] == DropOldCA(
            "dropping old CAs was requested", frozenset({fingerprint(FRESH.authorities[0].certificate)})
        )
        assert (len(state.authorities), state.requests) == (1, frozenset())

    def test_nothing_to_drop_is_done_at_once(self) -> None:
        state, actions = settle(replace(FRESH, requests=frozenset({Request.DROP_OLD})), now=NOW, settings=SETTINGS)
        assert kinds(actions) == ["DropOldCA", "Keep"]
        assert state == FRESH


class TestSettings:
    """Floors, each from both sides, and all problems at once."""

    @pytest.mark.parametrize(
        "good",
        [
            Settings(names=("a",), leaf_life=HOUR, ca_life=3 * HOUR),
            Settings(names=("a",), propagation=SECOND, adoption=9 * DAY),
            Settings(names=("a",), organization="x" * 50),
            Settings(names=("a",), ca_life=3650 * DAY),
        ],
    )
    def test_floors_themselves_are_allowed_and_settle(self, good: Settings) -> None:
        state, actions = settle(State(), now=NOW, settings=good)
        assert type(actions[-1]) is Keep
        assert state.leaf is not None

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"names": ()}, "names: a serving certificate needs at least one name"),
            ({"ca_life": 3650 * DAY + SECOND}, "ca_life: must be at most 3650 days, 0:00:00, not 3650 days, 0:00:01"),
            ({"organization": ""}, "organization: must have 1 to 50 characters, not 0"),
            ({"organization": "x" * 51}, "organization: must have 1 to 50 characters, not 51"),
            ({"leaf_life": HOUR - SECOND}, "leaf_life: must be at least 1:00:00, not 0:59:59"),
            (
                {"ca_life": 270 * DAY - SECOND},
                "ca_life: must be at least 3 times leaf_life (270 days, 0:00:00), not 269 days, 23:59:59",
            ),
            (
                {"propagation": timedelta()},
                "propagation: must be at least 0:00:01 and at most a tenth of leaf_life (9 days, 0:00:00), not 0:00:00",
            ),
            (
                {"leaf_life": 100 * HOUR, "adoption": DAY},
                "adoption: must be at least 0:00:01 and at most a tenth of leaf_life (10:00:00), not 1 day, 0:00:00",
            ),
        ],
    )
    def test_below_a_floor_is_refused_by_name(self, changes: dict[str, object], problem: str) -> None:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
            Settings(**({"names": ("a",)} | changes))  # type: ignore[arg-type]
        assert str(caught.value) == problem

    def test_all_problems_come_at_once(self) -> None:
        with pytest.raises(ValueError, match=r"^names: .*; organization: .*; leaf_life: .*; ca_life: .*; adoption: "):
            Settings(names=("",), organization="", leaf_life=SECOND, ca_life=SECOND, adoption=HOUR)


def test_a_state_without_a_ca_can_sign_nothing() -> None:
    assert State().signing is None
    assert State().issuer is None
    with pytest.raises(ValueError, match="without a CA"):
        advance(State(), RenewLeaf(""), now=NOW, settings=SETTINGS)


def test_a_lifecycle_that_never_settles_says_so() -> None:
    """Only a bug could do that; here it is settings that got past their floors."""
    impossible = replace(SETTINGS)
    object.__setattr__(impossible, "ca_life", DAY)
    with pytest.raises(AssertionError, match="does not settle"):
        settle(State(), now=NOW, settings=impossible)


def test_keeping_changes_nothing() -> None:
    assert advance(FRESH, Keep(""), now=NOW, settings=SETTINGS) is FRESH


class TestLaws:
    """Whatever the clock does."""

    @given(jumps=st.lists(st.floats(min_value=-500, max_value=500).map(timedelta), max_size=6), trusting=st.booleans())
    @budget(deadline=None, max_examples=60)
    def test_after_any_jump_the_leaf_is_valid_and_the_bundle_vouches_for_it(
        self, jumps: list[timedelta], *, trusting: bool
    ) -> None:
        state, now = FRESH, NOW
        for jump in jumps:
            now += jump
            observed = seen(state, trusted_for=DAY, stored_for=DAY) if trusting else NOTHING_SEEN
            state, actions = settle(state, now=now, settings=SETTINGS, observed=observed)
            assert isinstance(actions[-1], Keep)
            assert state.leaf is not None
            assert state.leaf.not_before <= now < state.leaf.not_after
            assert any(is_signed_by(state.leaf.certificate, ca) for ca in parse_bundle(state.bundle).certificates)
            assert state.authorities[0].is_valid(now)

    @given(steps=st.lists(st.floats(min_value=0, max_value=29).map(timedelta), max_size=40))
    @budget(deadline=None, max_examples=40)
    def test_a_watched_leaf_never_expires_nor_does_the_bundle_grow(self, steps: list[timedelta]) -> None:
        state, now = FRESH, NOW
        for step in steps:
            before, now = state, now + step
            assert before.leaf is not None
            assert now < before.leaf.not_after
            for _ in range(2):
                observed = seen(state, stored_for=60 * SECOND)
                state, _ = settle(state, now=now, settings=SETTINGS, observed=observed)
            assert len(state.authorities) <= 2


class TestForeignLives:
    """What lasts longer than ours would is made anew, whoever stored it."""

    LONG = Settings(names=SETTINGS.names, ca_life=3650 * DAY, leaf_life=1000 * DAY)

    def test_a_ca_and_a_leaf_that_last_longer_are_replaced_in_the_order_of_a_rotation(self) -> None:
        state = new_state(settings=self.LONG)
        action = decide(state, now=NOW, settings=SETTINGS)
        assert action == RotateCA("the CA lasts longer than 365 days, 0:00:00")
        state = advance(state, action, now=NOW, settings=SETTINGS)
        state, actions = settle(state, now=NOW, settings=SETTINGS, observed=seen(state))
        assert kinds(actions) == ["RenewLeaf", "Keep"]
        assert state.leaf is not None
        assert state.leaf.not_after - NOW <= 90 * DAY

    def test_what_the_secret_says_of_leaves_is_believed_no_longer_than_a_ca_of_ours_lasts(self) -> None:
        long = new_state(settings=self.LONG)
        state = advance(long, RotateCA(""), now=NOW, settings=SETTINGS)
        later = NOW + 366 * DAY
        state = advance(state, RotateCA(""), now=later, settings=SETTINGS)
        state = advance(state, RenewLeaf(""), now=later, settings=SETTINGS)
        state, actions = settle(state, now=later, settings=SETTINGS, observed=seen(state, stored_for=HOUR))
        assert "DropOldCA" in kinds(actions)
        assert len(state.authorities) == 1

    def test_a_leaf_that_lasts_as_long_as_is_asked_for_is_kept(self) -> None:
        assert isinstance(decide(FRESH, now=NOW, settings=SETTINGS), Keep)

    def test_however_often_a_ca_is_asked_for_the_bundle_stays_small_and_vouches_for_the_leaf(self) -> None:
        state = FRESH
        for _ in range(3 * MAX_AUTHORITIES):
            state = advance(state, RotateCA(""), now=NOW, settings=SETTINGS)
            assert len(state.authorities) <= MAX_AUTHORITIES
            assert state.issuer is not None
        assert FRESH.authorities[0] in state.authorities
