"""`decide` stops at the first question that answers, `explain` shows how it got there: the core ends here."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from webhook.rules import wellknown
from webhook.rules.decision import (
    ADVICE,
    ENFORCE,
    OUTCOMES,
    Answer,
    Decision,
    Mode,
    Outcome,
    Reason,
    one_line,
)
from webhook.rules.excess import pod_shares, shares_excess
from webhook.rules.limits import CAUSE_LIMIT, SMALL, WARNING_LIMIT, WARNINGS
from webhook.rules.mark import mark
from webhook.rules.objects import DaemonSet, ObjectMeta, Pod, Service, Shaped, Workload
from webhook.rules.patch import NOTHING
from webhook.rules.pods import POD_QUESTIONS, SMALL_POD_QUESTIONS, PodCase
from webhook.rules.questions import SMALL_ENOUGH, C, Question
from webhook.rules.services import SERVICE_QUESTIONS, ServiceCase
from webhook.rules.snapshot import Request, Snapshot
from webhook.rules.templates import as_daemon

SERVICE_OPERATIONS: Final = frozenset({"CREATE", "UPDATE"})


@dataclass(frozen=True, slots=True)
class Explained:
    """One question with its answer, or the fact on which it passed."""

    question: str
    answer: Answer | None
    fact: str
    asked: bool = True
    """False for what comes after the answer: what it would say rests on what is not so."""


def decide(request: Request, snapshot: Snapshot, *, now: datetime) -> Decision:
    """
    Return the decision for *request*: the same request, snapshot and time give the same decision.

    Args:
        now: The current time, timezone-aware: exceptions expire by it.

    """
    case = _case(request, snapshot, now=now)
    if request.excess and not isinstance(case, str):
        return _too_large(case, request.excess, patches=not isinstance(request.object, Workload | Shaped))
    if isinstance(case, PodCase):
        asks = _SMALL_POD_ASKS if 0 < request.size <= SMALL else _POD_ASKS
        is_pod = isinstance(request.object, Pod)
        if not is_pod and isinstance(request.object, Shaped) and len(request.object.pods) > 1:
            return _decide_each(request, request.object, snapshot, now=now)
        return _decided(case, _first(case, asks), patches=is_pod)
    if isinstance(case, ServiceCase):
        return _decided(case, _first(case, _SERVICE_ASKS), patches=True)
    return Decision(
        reason=Reason.NOT_HANDLED, cause=one_line(case, CAUSE_LIMIT), mode=Mode.DISABLED, outcome=Outcome.NOT_ASKED
    )


def _decide_each(request: Request, reviewed: Shaped, snapshot: Snapshot, *, now: datetime) -> Decision:
    """Return the decision on the first of an object's pods that would lose the client's IP, else on the first."""
    first, shares = None, 0
    for pod in reviewed.pods:
        shares += pod_shares(pod)  # all of them together cost no more than one may
        one = msgspec.structs.replace(request, object=Shaped(pods=(pod,)), excess=shares_excess(shares))
        decision = decide(one, snapshot, now=now)
        if decision.outcome is Outcome.LOST:
            return decision
        first = first or decision
    assert first is not None  # noqa: S101  # it is called where there are several
    return first


def explain(request: Request, snapshot: Snapshot, *, now: datetime) -> tuple[Explained, ...]:
    """
    Return every question of the object's kind in order, each with the fact that it passed on, or the answer.

    What stands after the answer is named and not asked.
    """
    case = _case(request, snapshot, now=now)
    if isinstance(case, PodCase):
        return tuple(_explained(case, _knowing(POD_QUESTIONS, request.excess)))
    if isinstance(case, ServiceCase):
        return tuple(_explained(case, _knowing(SERVICE_QUESTIONS, request.excess)))
    cause = one_line(case, CAUSE_LIMIT)
    return (Explained("handled?", Answer(Reason.NOT_HANDLED, cause), cause),)


def _case(request: Request, snapshot: Snapshot, *, now: datetime) -> PodCase | ServiceCase | str:
    """Return what is to be asked about, or why nothing is."""
    reviewed = request.object
    if reviewed is None:
        return "the request has no object"
    if request.subresource:
        return f"subresource {request.subresource}"
    if isinstance(reviewed, Pod):
        if request.operation != "CREATE":
            return f"pods at {request.operation}: the mode is fixed at injection"
        namespace = request.namespace or reviewed.metadata.namespace
        return PodCase(reviewed, namespace, snapshot, now=now, size=request.size)
    if request.operation not in SERVICE_OPERATIONS:
        return f"operation {request.operation}"
    namespace = request.namespace or reviewed.metadata.namespace
    if isinstance(reviewed, Service):
        old_policy = request.old_external_traffic_policy
        return ServiceCase(reviewed, namespace, snapshot, now=now, size=request.size, old_policy=old_policy)
    if isinstance(reviewed, Shaped):
        if not reviewed.pods:
            return "the object has no pod template that the webhook can read"
        return PodCase(reviewed.pods[0], namespace, snapshot, now=now, size=request.size)
    return PodCase(pod_of(reviewed), namespace, snapshot, now=now, size=request.size)


def pod_of(workload: Workload) -> Pod:
    """Return the pod that *workload* makes, as far as its template says."""
    template = workload.template()
    pod = Pod(metadata=template.metadata or ObjectMeta(), spec=template.spec)
    return as_daemon(pod) if isinstance(workload, DaemonSet) else pod


def _knowing(questions: Sequence[Question[C]], excess: str) -> Sequence[Question[C]]:
    """Return *questions*, of which the one for the object's size knows that *excess* was not even decoded."""
    if not excess:
        return questions
    answer = Answer(Reason.TOO_LARGE, excess)
    return [
        dataclasses.replace(each, ask=lambda _: answer) if each.text == SMALL_ENOUGH else each for each in questions
    ]


def _too_large(case: PodCase | ServiceCase, excess: str, *, patches: bool) -> Decision:
    """What was left out of the object is not absent: to add to it would be to replace it, so nothing is patched."""
    if isinstance(case, PodCase):
        answer = _first(case, _asks(_knowing(POD_QUESTIONS, excess)))
    else:
        answer = _first(case, _asks(_knowing(SERVICE_QUESTIONS, excess)))
    decision = _decided(case, answer, patches=patches)
    return msgspec.structs.replace(decision, patch=NOTHING, would_patch=NOTHING)


def _asks(questions: Iterable[Question[C]]) -> tuple[Callable[[C], Answer | None], ...]:
    return tuple(question.ask for question in questions)


_POD_ASKS: Final = _asks(POD_QUESTIONS)
_SMALL_POD_ASKS: Final = _asks(SMALL_POD_QUESTIONS)
_SERVICE_ASKS: Final = _asks(SERVICE_QUESTIONS)


def _first(case: C, asks: Iterable[Callable[[C], Answer | None]]) -> Answer:
    for ask in asks:
        answer = ask(case)
        if answer is not None:
            return answer
    raise AssertionError("the last question always answers")


def _explained(case: C, questions: Sequence[Question[C]]) -> Iterator[Explained]:
    answer: Answer | None = None
    for question in questions:
        if answer is not None:
            yield Explained(question.text, None, "", asked=False)
            continue
        answer = question.ask(case)
        if answer is None:
            yield Explained(question.text, None, one_line(question.fact(case), CAUSE_LIMIT))
            continue
        warnings = tuple(map(one_line, answer.warnings[:WARNINGS]))
        answer = msgspec.structs.replace(answer, cause=one_line(answer.cause, CAUSE_LIMIT), warnings=warnings)
        yield Explained(question.text, answer, answer.cause)


_LOST: Final = Outcome.LOST
_WAIVABLE: Final = frozenset({Outcome.LOST, Outcome.WAIVED})


def _decided(case: PodCase | ServiceCase, answer: Answer, *, patches: bool) -> Decision:
    mode = case.mode()
    outcome = Outcome.PRESERVED if answer.preserved else OUTCOMES[answer.reason]
    warns = mode is ENFORCE
    warnings = (*answer.warnings, *case.warnings) if warns else ()
    if case.opt_out is not None or outcome in _WAIVABLE:
        warnings = (*case.notices(mode, outcome), *warnings)
    if warns and outcome is _LOST:
        warnings = (_lost(answer), *warnings)
    if warns and not patches:
        ours = [f"label {wellknown.METHOD}"] if wellknown.METHOD in case.labels else []
        ours += [f"annotation {wellknown.REASON}"] if wellknown.REASON in (case.metadata.annotations or ()) else []
        warnings = (
            *warnings,
            *(f"the pod template has the {each}, which only the webhook may set: remove it" for each in ours),
        )
    enforce = warns and patches
    patch = answer.patch if enforce else NOTHING
    cause = answer.cause
    policy = case.policy
    return Decision(
        reason=answer.reason,
        cause=cause if len(cause) <= CAUSE_LIMIT and cause.isprintable() else one_line(cause, CAUSE_LIMIT),
        mode=mode,
        outcome=outcome,
        patch=patch,
        would_patch=NOTHING if warns or mode is not Mode.AUDIT else answer.patch,
        mark=mark(case, answer, mode) if patches and not patch else NOTHING,
        policy="" if policy is None else policy.name,
        warnings=tuple(map(one_line, warnings[:WARNINGS])) if warnings else (),
        invalid_preserve=case.invalid_preserve(),
    )


def _lost(answer: Answer) -> str:
    """Return the warning of a loss: where it is too long, the cause is cut, never what to do about it."""
    head, tail = f"client IP lost ({answer.reason}): ", f"; {ADVICE[answer.reason]}"
    return head + one_line(answer.cause, WARNING_LIMIT - len(head) - len(tail)) + tail
