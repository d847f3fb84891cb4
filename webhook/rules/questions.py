"""
What a question is, and the two that Pods and Services share: who opted in, and which policy holds.

Questions are data, in order: `decide` stops at the first that answers, `explain` asks them all.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from webhook.rules import wellknown
from webhook.rules.decision import ENFORCE, Answer, Mode, Outcome, Reason, one_line
from webhook.rules.ends import End, end_state, moment
from webhook.rules.objects import ObjectMeta
from webhook.rules.optin import FINE, OptOut, Preserve, invalid_value, opt_out, preserve
from webhook.rules.policy import Policy, PolicyException, PolicyMode
from webhook.rules.snapshot import Snapshot

NO_LABELS: Final[Mapping[str, str]] = {}
# Each is compared with in every review: see ENFORCE.
_ENABLED: Final = Preserve.ENABLED
_AUDIT: Final = Preserve.AUDIT
_DISABLED: Final = Preserve.DISABLED
_POLICY_AUDIT: Final = PolicyMode.AUDIT
_POLICY_DISABLED: Final = PolicyMode.DISABLED


class Case:
    """One object that is being decided: what the questions look at."""

    __slots__ = (
        "around",
        "asked",
        "labels",
        "metadata",
        "namespace",
        "namespace_labels",
        "now",
        "opt_out",
        "policy",
        "snapshot",
    )

    def __init__(self, metadata: ObjectMeta, namespace: str, snapshot: Snapshot, *, now: datetime) -> None:
        self.metadata = metadata
        self.labels = metadata.labels or NO_LABELS
        self.namespace = namespace
        self.namespace_labels = snapshot.namespaces.get(namespace)
        self.around: Mapping[str, str] = NO_LABELS if self.namespace_labels is None else self.namespace_labels
        """The namespace's labels; none where it is unknown."""
        self.snapshot = snapshot
        self.now = now
        self.opt_out: OptOut | None = None
        """Until when the object's own label applies, if the label is not `enabled`."""
        self.asked = self._asked()
        """What the object's label asks for until its end, else its namespace's."""
        self.policy = self.find_policy()
        """The policy that applies to the object."""

    def find_policy(self) -> Policy | None:
        """Return the policy that holds; Pods and Services are selected differently."""
        raise NotImplementedError

    def _asked(self) -> Preserve | None:
        asked = preserve(self.labels)
        if asked is not None and asked is not _ENABLED:
            self.opt_out = opt_out(self.metadata.annotations)
            if self.has_ended:
                asked = None
        return asked if asked is not None else preserve(self.around)

    @property
    def has_ended(self) -> bool:
        """Whether the object's own label counts as absent, since its end has passed."""
        out = self.opt_out
        return out is not None and out.until is not None and out.until <= self.now

    def asked_where(self) -> str:
        """Return the fact that `asked` rests on."""
        asked, ended = self.asked, self.has_ended
        of_object = preserve(self.metadata.labels) is not None and not ended
        if asked is None:
            fact = f"no label {wellknown.PRESERVE} on the object or its namespace"
        elif of_object:
            fact = f"label {wellknown.PRESERVE}={asked} on the object"
        else:
            fact = f"label {wellknown.PRESERVE}={asked} on namespace {self.namespace}"
        if self.opt_out is None:
            return fact
        return (
            f"{fact}; the object's own label {self.labels[wellknown.PRESERVE]} has ended: {self.opt_out}"
            if ended
            else (f"{fact} {self.opt_out}")
        )

    def notices(self, mode: Mode, outcome: Outcome) -> tuple[str, ...]:
        """Return what is to be said of waivers that cover the object and end soon, or that ended and left it lost."""
        said = [*self._opt_out_notices(mode)]
        policy = self.policy
        if mode is not Mode.ENFORCE or policy is None or not policy.exceptions:
            return tuple(said)
        if outcome is Outcome.WAIVED:
            live = policy.exception_for(self.around, self.labels, now=self.now)
            if live is not None and end_state(live.expires, now=self.now) is End.ENDING:
                said.append(f"exception {live.name} of policy {policy.name} ends {moment(live.expires)} ({live.owner})")
        elif outcome is Outcome.LOST:
            last = ended_exception(self)
            if last is not None:
                said.append(
                    f"exception {last.name} of policy {policy.name} ended {moment(last.expires)} ({last.owner})"
                )
        return tuple(said)

    def _opt_out_notices(self, mode: Mode) -> Iterator[str]:
        out, policy = self.opt_out, self.policy
        if out is None or out.until is None:
            return
        state = end_state(out.until, now=self.now)
        what, whose = f"label {wellknown.PRESERVE}={self.labels[wellknown.PRESERVE]}", out.owner or "without an owner"
        if state is End.ENDED and mode is Mode.ENFORCE:
            yield f"{what} ended {moment(out.until)} ({whose}): the namespace's label applies"
        # Nobody is warned where the namespace's word changes nothing.
        enforced = policy is None or policy.mode is PolicyMode.ENFORCE
        if state is End.ENDING and enforced and preserve(self.namespace_labels) is Preserve.ENABLED:
            yield f"{what} ends {moment(out.until)} ({whose}): then the namespace's label applies"

    def mode(self) -> Mode:
        """Return the weaker of what was asked for and what the policy allows."""
        asked = self.asked
        policy = self.policy
        if asked is _DISABLED or (asked is None and self.namespace_labels is not None):
            return Mode.DISABLED
        if policy is not None and not policy.invalid and policy.mode is _POLICY_DISABLED:
            return Mode.DISABLED
        if asked is _AUDIT or (policy is not None and policy.mode is _POLICY_AUDIT):
            return Mode.AUDIT
        return ENFORCE

    def invalid_preserve(self) -> str:
        """Return what is wrong with the opt-in labels, or nothing."""
        if self.labels.get(wellknown.PRESERVE) in FINE and self.around.get(wellknown.PRESERVE) in FINE:
            return ""
        value, where = invalid_value(self.labels), "the object"
        if value is None:
            value, where = invalid_value(self.around), "its namespace"
        if value is None:
            return ""
        value = one_line(value, 64)  # from here on it is quoted: who wrote it may have written megabytes
        return f"label {wellknown.PRESERVE}={value!r} on {where} is ignored: it must be enabled, audit or disabled"


C = TypeVar("C", bound=Case)


@dataclass(frozen=True, slots=True)
class Question(Generic[C]):
    """One question: *ask* gives the Answer that ends it, or None; *fact* says what it passed on."""

    text: str
    ask: Callable[[C], Answer | None]
    fact: Callable[[C], str]


SMALL_ENOUGH: Final = "within the size limits?"


def ask_opted_in(case: Case) -> Answer | None:
    """The label on the object, else on its namespace; system namespaces and our own never are."""
    if case.namespace in wellknown.SYSTEM_NAMESPACES or case.namespace == case.snapshot.own_namespace:
        return Answer(Reason.NOT_OPTED_IN, f"{case.namespace} is a system namespace or the webhook's own namespace")
    asked = case.asked
    if asked is _DISABLED:
        return Answer(Reason.OPTED_OUT, case.asked_where())
    if case.namespace_labels is None:
        return Answer(Reason.NAMESPACE_UNKNOWN, f"namespace {case.namespace!r} is not known")
    if asked is None:
        return Answer(Reason.NOT_OPTED_IN, case.invalid_preserve() or case.asked_where())
    return None


def fact_opted_in(case: Case) -> str:
    return case.asked_where()


def ask_policy(case: Case) -> Answer | None:
    """A usable, enabled policy that matches, and no live exception."""
    policy = case.policy
    if policy is None:
        return Answer(Reason.NO_POLICY, "no policy selects the object")
    if policy.invalid:
        return Answer(Reason.POLICY_INVALID, f"policy {policy.name}: {policy.invalid}")
    if policy.mode is _POLICY_DISABLED:
        return Answer(Reason.POLICY_DISABLED, f"policy {policy.name} has mode Disabled")
    exception = policy.exception_for(case.around, case.labels, now=case.now) if policy.exceptions else None
    if exception is not None:
        ticket = f", {exception.ticket}" if exception.ticket else ""
        cause = (
            f"exception {exception.name} of policy {policy.name} until {moment(exception.expires)}: "
            f"{exception.reason} ({exception.owner}{ticket})"
        )
        return Answer(Reason.EXCEPTED, cause)
    return None


def ended_exception(case: Case) -> PolicyException | None:
    """Return the exception that covered the object until last; none where one still does, or none ever did."""
    covering = [each for each in case.policy.exceptions if each.covers(case.around, case.labels)] if case.policy else []
    last = max(covering, key=lambda each: each.expires, default=None)
    return last if last is not None and last.expires <= case.now else None


def fact_policy(case: Case) -> str:
    policy = case.policy
    if policy is None:
        return "no policy"
    last = ended_exception(case)
    ended = f"; its exception {last.name} ended {moment(last.expires)} ({last.owner})" if last is not None else ""
    return f"policy {policy.name}, mode {policy.mode}; no active exception{ended}"
