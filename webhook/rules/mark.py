"""
The mark on what was decided and left alone: the annotation `client-ip.dev/reason`.

The policy `final-state` of the API server finds pods and gateways that came out unpreserved; it can't ask why. The mark
tells it which of them the webhook left as they are, so that what is left to count was decided by nobody. It is written
where a policy's mode is Audit or Disabled too: it changes no traffic. Whoever may write the object can forge it.
"""

from typing import Final

from webhook.rules import wellknown
from webhook.rules.decision import ENFORCE, Answer, Mode, Reason
from webhook.rules.excess import annotations_are_full
from webhook.rules.interception import as_it_stands
from webhook.rules.optin import Preserve
from webhook.rules.patch import NOTHING, Patch, add_metadata
from webhook.rules.pods import PodCase
from webhook.rules.services import LOCAL, ServiceCase, is_external

AUDIT: Final = "audit"
"""In place of a Reason: what would have been patched is left as it is, since the policy only audits."""
_ENABLED: Final = Preserve.ENABLED
_NEVER: Final = frozenset(
    {
        Reason.NOT_OPTED_IN,
        Reason.OPTED_OUT,
        Reason.NO_SIDECAR,  # nothing to find
        Reason.ALREADY_INJECTED,  # not by choice: it must be found
        Reason.TOO_LARGE,  # where there may be no room
        Reason.NOT_A_GATEWAY,
        Reason.NOT_EXTERNAL,
        Reason.BEING_DELETED,
    },
)


def mark(case: PodCase | ServiceCase, answer: Answer, mode: Mode) -> Patch:
    """Return what marks the object as left alone; nothing where it is patched, or where nobody would miss a patch."""
    patched = mode is ENFORCE and answer.patch
    if patched or case.asked is not _ENABLED or answer.reason in _NEVER:
        return NOTHING
    if mode is ENFORCE and answer.reason in {Reason.TPROXY, Reason.X_FORWARDED_FOR, Reason.LOCAL}:
        return NOTHING  # our own output, or Local by its owner's hand
    if annotations_are_full(case.annotations, case.size):
        return NOTHING
    if isinstance(case, PodCase):
        if _stands(case):
            return NOTHING
    elif not _is_gateway(case) or case.service.spec.external_traffic_policy == LOCAL:
        return NOTHING
    value = AUDIT if mode is Mode.AUDIT and answer.patch else answer.reason.value
    return add_metadata("annotations", case.metadata.annotations, wellknown.REASON, value)


def _stands(case: PodCase) -> bool:
    """Return whether somebody injected it already: such a pod is never patched."""
    if case.customised:
        return case.standing is not None
    return as_it_stands(case.pod, case.namespace, case.around, case.snapshot.mesh) is not None


def _is_gateway(case: ServiceCase) -> bool:
    policy = case.policy
    return (
        policy is not None and policy.is_gateway(case.labels, case.snapshot.gateway_classes) and bool(is_external(case))
    )
