"""
What a question is, and the two that Pods and Services share: who opted in, and which policy holds.

Questions are data, in order: `decide` stops at the first that answers, `explain` asks them all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from webhook.rules import wellknown
from webhook.rules.decision import Answer, Mode, Reason
from webhook.rules.objects import ObjectMeta
from webhook.rules.optin import Preserve, invalid_value, preserve
from webhook.rules.policy import Policy, PolicyMode
from webhook.rules.snapshot import Snapshot

NO_LABELS: Final[Mapping[str, str]] = {}


class Case:
    """One object that is being decided: what the questions look at."""

    __slots__ = ("_policy", "labels", "metadata", "namespace", "namespace_labels", "now", "snapshot")

    def __init__(self, metadata: ObjectMeta, namespace: str, snapshot: Snapshot, *, now: datetime) -> None:
        self.metadata = metadata
        self.labels = metadata.labels or NO_LABELS
        self.namespace = namespace
        self.namespace_labels = snapshot.namespaces.get(namespace)
        self.snapshot = snapshot
        self.now = now
        self._policy: Policy | bool | None = False

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

    def preserve(self) -> tuple[Preserve | None, str]:
        """Return what was asked for, and where."""
        asked = preserve(self.metadata.labels)
        if asked is not None:
            return asked, f"label {wellknown.PRESERVE}={asked} of the object"
        asked = preserve(self.namespace_labels)
        if asked is not None:
            return asked, f"label {wellknown.PRESERVE}={asked} of namespace {self.namespace}"
        return None, f"no label {wellknown.PRESERVE} on the object or its namespace"

    def mode(self) -> Mode:
        """Return the weaker of what was asked for and what the policy allows."""
        asked, _ = self.preserve()
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
        for owner, labels in (("the object", self.metadata.labels), (f"namespace {self.namespace}", self.around)):
            value = invalid_value(labels)
            if value is not None:
                return (
                    f"label {wellknown.PRESERVE}={value!r} of {owner} counts as absent: "
                    "it is none of enabled, audit, disabled"
                )
        return ""


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
    asked, where = case.preserve()
    if asked is Preserve.DISABLED:
        return Answer(Reason.OPTED_OUT, where)
    if case.namespace_labels is None:
        return Answer(Reason.NAMESPACE_UNKNOWN, f"namespace {case.namespace!r} is not known")
    if asked is None:
        return Answer(Reason.NOT_OPTED_IN, case.invalid_preserve() or where)
    return None


def fact_opted_in(case: Case) -> str:
    return case.preserve()[1]


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
