"""
Now against after a restart: what a workload's pods have, what its template will get, and the advice that the pair is.

The evaluator is the one that decides admission: a template is decided as it would be, and of a running pod the same
questions are asked about whose it is and which mode its proxy has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from webhook.rules import wellknown
from webhook.rules.decide import decide
from webhook.rules.decision import OUTCOMES, Answer, Decision, Mode, Outcome, Reason, one_line
from webhook.rules.interception import TPROXY, as_it_runs as proxy_as_it_runs
from webhook.rules.objects import Pod, Reviewed, Service
from webhook.rules.pods import (
    METHOD_HEADER,
    PodCase,
    answer_running,
)
from webhook.rules.policy import Policy, PolicyException
from webhook.rules.questions import Case, ask_opted_in
from webhook.rules.services import ServiceCase
from webhook.rules.snapshot import Request, Snapshot

CAUSE_LIMIT: Final = 300
"""Characters of a cause that are kept: tenants write the texts that causes cite."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What becomes of the client's IP, by which Reason, and the fact that it rests on."""

    outcome: Outcome
    reason: Reason
    cause: str = ""


class Advice(StrEnum):
    """What is to be done about a workload; in the order in which they are shown."""

    AT_RISK = "at-risk"
    RESTART = "restart"
    CHANGE = "change"
    HEADER = "header"
    EXCEPTED = "excepted"
    OPTED_OUT = "opted-out"
    PRESERVED = "preserved"


class Waiver(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An exception as a report shows it."""

    policy: str
    name: str
    owner: str
    reason: str = ""
    ticket: str = ""
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a template will get."""

    verdict: Verdict
    mode: Mode
    policy: str = ""
    waiver: Waiver | None = None
    """The live exception that covers it."""
    ended: Waiver | None = None
    """An exception that did cover it and has ended."""


def expected(
    reviewed: Reviewed,
    namespace: str,
    name: str,
    kind: str,
    snapshot: Snapshot,
    *,
    now: datetime,
    excess: str = "",
) -> Expected:
    """
    Return what an object will get when it is made again: a pod of this template, a Service at its next write.

    Args:
        reviewed: The object.
        namespace: Its namespace.
        name: Its name.
        kind: Its kind.
        snapshot: The facts.
        now: The time, timezone-aware.
        excess: What of it is too much for the webhook to decode (`Request.excess`).

    """
    request = Request(object=reviewed, operation="CREATE", namespace=namespace, name=name, kind=kind, excess=excess)
    decision = decide(request, snapshot, now=now)
    case = _case(reviewed, namespace, snapshot, now=now)
    live, ended = _waivers(case) if decision.outcome is not Outcome.NOT_ASKED else (None, None)
    return Expected(
        verdict=_of_decision(decision), mode=decision.mode, policy=decision.policy, waiver=live, ended=ended
    )


def _case(reviewed: Reviewed, namespace: str, snapshot: Snapshot, *, now: datetime) -> Case | None:
    if isinstance(reviewed, Service):
        return ServiceCase(reviewed, namespace, snapshot, now=now)
    return PodCase(reviewed, namespace, snapshot, now=now) if isinstance(reviewed, Pod) else None


def _of_decision(decision: Decision) -> Verdict:
    return Verdict(outcome=decision.outcome, reason=decision.reason, cause=one_line(decision.cause, CAUSE_LIMIT))


def _waivers(case: Case | None) -> tuple[Waiver | None, Waiver | None]:
    policy = case.policy if case is not None else None
    if case is None or policy is None or policy.invalid:
        return None, None
    live = ended = None
    for exception in matching(policy, case):
        if case.now < exception.expires:
            live = live or waiver(policy, exception)
        elif ended is None or ended.expires < exception.expires:
            ended = waiver(policy, exception)
    return live, ended if live is None else None


def matching(policy: Policy, case: Case) -> Iterator[PolicyException]:
    """Yield the policy's exceptions whose selectors match the object, live or not."""
    for exception in policy.exceptions:
        if exception.namespace_selector.matches(case.around) and exception.selector.matches(case.labels):
            yield exception


def waiver(policy: Policy, exception: PolicyException) -> Waiver:
    """Return *exception* as a report shows it."""
    return Waiver(
        policy=policy.name,
        name=exception.name,
        owner=exception.owner,
        reason=exception.reason,
        ticket=exception.ticket,
        expires=exception.expires,
    )


def as_it_runs(pod: Pod, namespace: str, snapshot: Snapshot, *, now: datetime) -> Verdict:
    """
    Return what *pod* has, whatever its template says: its mode was fixed when it was made.

    Whether a policy matches says nothing about what runs, so it is not asked.
    """
    case = PodCase(pod, namespace, snapshot, now=now)
    asked = ask_opted_in(case)
    if asked is not None and OUTCOMES[asked.reason] is Outcome.NOT_ASKED:
        return _of_answer(asked)
    answer = answer_running(case)
    verdict = _of_answer(answer)
    if verdict.outcome is Outcome.PRESERVED and runs_by_tproxy(pod):
        return msgspec.structs.replace(verdict, reason=Reason.TPROXY)
    if verdict.outcome is not Outcome.LOST or case.labels.get(wellknown.METHOD) != METHOD_HEADER:
        return verdict
    return Verdict(outcome=Outcome.HEADER, reason=Reason.X_FORWARDED_FOR, cause=_BY_LABEL)


_BY_LABEL: Final = f"label {wellknown.METHOD}={METHOD_HEADER}: the EnvoyFilter selects it"


def _of_answer(answer: Answer) -> Verdict:
    outcome = Outcome.PRESERVED if answer.preserved else OUTCOMES[answer.reason]
    return Verdict(outcome=outcome, reason=answer.reason, cause=one_line(answer.cause, CAUSE_LIMIT))


def disagreement(pod: Pod) -> str:
    """
    Return how the pod's annotation and its proxy disagree, or nothing.

    The proxy's mode was fixed at injection; an annotation that came later changes nothing, until istio-cni's repair
    reads it again, sets TPROXY's rules for a proxy that redirects, and cuts the pod's inbound traffic off.
    """
    stated = (pod.metadata.annotations or {}).get(wellknown.INTERCEPTION_MODE)
    if stated is None:
        return ""
    found = proxy_as_it_runs(pod)
    mode = found.mode if found is not None else ""
    if not mode or mode == stated:
        return ""
    return f"annotation {one_line(stated, 20)}, proxy {one_line(mode, 20)}"


def runs_by_tproxy(pod: Pod) -> bool:
    """Return whether the pod's proxy runs in TPROXY mode."""
    found = proxy_as_it_runs(pod)
    return found is not None and found.captured and found.mode == TPROXY


def advise(now: Outcome | None, after: Verdict, *, stranded: bool = False) -> Advice | None:
    """
    Return the advice that the pair is; None where nobody asked.

    Args:
        now: Of the pods as they run, the worst of them; None where none of them runs, or none is asked about.
        after: Of the template.
        stranded: A pod runs in TPROXY mode on a node that does not support it.

    """
    if after.outcome is Outcome.NOT_ASKED:
        return Advice.OPTED_OUT if after.reason is Reason.OPTED_OUT else None
    if after.outcome is Outcome.WAIVED:
        return Advice.EXCEPTED
    if now is Outcome.LOST:
        return Advice.CHANGE if after.outcome is Outcome.LOST else Advice.RESTART
    if after.outcome is Outcome.LOST:
        return Advice.CHANGE if now is None else Advice.AT_RISK
    if stranded:
        return Advice.AT_RISK
    return Advice.HEADER if Outcome.HEADER in {now, after.outcome} else Advice.PRESERVED
