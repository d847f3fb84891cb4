"""
What a question is, and the two that Pods and Services share: who opted in, and which policy holds.

Questions are data, in order: `decide` stops at the first that answers, `explain` asks them all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from webhook.rules import wellknown
from webhook.rules.decision import Answer, Mode, Reason, one_line
from webhook.rules.objects import ObjectMeta
from webhook.rules.optin import Preserve, invalid_value, preserve
from webhook.rules.policy import Policy, PolicyMode
from webhook.rules.snapshot import Snapshot

NO_LABELS: Final[Mapping[str, str]] = {}


class Case:
    """One object that is being decided: what the questions look at."""

    __slots__ = ("_asked", "_policy", "labels", "metadata", "namespace", "namespace_labels", "now", "snapshot")

    def __init__(self, metadata: ObjectMeta, namespace: str, snapshot: Snapshot, *, now: datetime) -> None:
        self.metadata = metadata
        self.labels = metadata.labels or NO_LABELS
        self.namespace = namespace
        self.namespace_labels = snapshot.namespaces.get(namespace)
        self.snapshot = snapshot
        self.now = now
        self._policy: Policy | bool | None = False
        self._asked: Preserve | bool | None = False

    @property
    def around(self) -> Mapping[str, str]:
        """The namespace's labels; none where it is unknown."""
        return self.namespace_labels if self.namespace_labels is not None else NO_LABELS

    @property
    def policy(self) -> Policy | None:
        """The policy that holds for the object."""
        if isinstance(self._policy, bool):
            self._policy = self.find_policy()
        return self._policy

    def find_policy(self) -> Policy | None:
        """Return the policy that holds; Pods and Services are selected differently."""
        raise NotImplementedError

    @property
    def asked(self) -> Preserve | None:
        """What the object's label asks for, else its namespace's."""
        if isinstance(self._asked, bool):
            asked = preserve(self.metadata.labels)
            self._asked = asked if asked is not None else preserve(self.namespace_labels)
        return self._asked

    def asked_where(self) -> str:
        """Return the fact that `asked` rests on."""
        if self.asked is None:
            return f"no label {wellknown.PRESERVE} on the object or its namespace"
        of_object = preserve(self.metadata.labels) is not None
        where = "the object" if of_object else f"namespace {self.namespace}"
        return f"label {wellknown.PRESERVE}={self.asked} of {where}"

    def mode(self) -> Mode:
        """Return the weaker of what was asked for and what the policy allows."""
        asked = self.asked
        policy = self.policy
        if asked is Preserve.DISABLED or (asked is None and self.namespace_labels is not None):
            return Mode.DISABLED
        if policy is not None and not policy.invalid and policy.mode is PolicyMode.DISABLED:
            return Mode.DISABLED
        if asked is Preserve.AUDIT or (policy is not None and policy.mode is PolicyMode.AUDIT):
            return Mode.AUDIT
        return Mode.ENFORCE

    def invalid_preserve(self) -> str:
        """Return what is wrong with the opt-in labels, or nothing."""
        value, where = invalid_value(self.metadata.labels), "the object"
        if value is None:
            value, where = invalid_value(self.namespace_labels), "its namespace"
        if value is None:
            return ""
        value = one_line(value, 64)  # from here on it is quoted: who wrote it may have written megabytes
        return (
            f"label {wellknown.PRESERVE}={value!r} of {where} counts as absent: it is none of enabled, audit, disabled"
        )


C = TypeVar("C", bound=Case)


@dataclass(frozen=True, slots=True)
class Question(Generic[C]):
    """One question: *ask* gives the Answer that ends it, or None; *fact* says what it passed on."""

    text: str
    ask: Callable[[C], Answer | None]
    fact: Callable[[C], str]


def ask_opted_in(case: Case) -> Answer | None:
    """The label on the object, else on its namespace; system namespaces and our own never are."""
    if case.namespace in wellknown.SYSTEM_NAMESPACES or case.namespace == case.snapshot.own_namespace:
        return Answer(Reason.NOT_OPTED_IN, f"{case.namespace} is a system namespace or the webhook's own")
    asked = case.asked
    if asked is Preserve.DISABLED:
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
        return Answer(Reason.NO_POLICY, "no policy's selectors match")
    if policy.invalid:
        return Answer(Reason.POLICY_INVALID, f"policy {policy.name}: {policy.invalid}")
    if policy.mode is PolicyMode.DISABLED:
        return Answer(Reason.POLICY_DISABLED, f"policy {policy.name} has mode Disabled")
    exception = policy.exception_for(case.around, case.labels, now=case.now) if policy.exceptions else None
    if exception is not None:
        ticket = f", {exception.ticket}" if exception.ticket else ""
        cause = (
            f"exception {exception.name} of policy {policy.name} until {exception.expires.isoformat()}: "
            f"{exception.reason} ({exception.owner}{ticket})"
        )
        return Answer(Reason.EXCEPTED, cause)
    return None


def fact_policy(case: Case) -> str:
    policy = case.policy
    if policy is None:
        return "no policy"
    expired = [
        each.name
        for each in policy.exceptions
        if each.expires <= case.now
        and each.namespace_selector.matches(case.around)
        and each.selector.matches(case.labels)
    ]
    ended = f"; its exception {expired[0]} has expired" if expired else ""
    return f"policy {policy.name}, mode {policy.mode}; no live exception{ended}"
