"""
Decides pods of one template once: a rollout asks for the same decision with every pod.

A fast path. What it saves is `decide`, and it gives the same (tests/property/test_again.py). Two pods are decided
alike where all that a decision reads of them is equal, which is why that is what decisions are kept by.
"""

from datetime import datetime
from typing import Final

import msgspec

from webhook.rules import wellknown
from webhook.rules.decide import decide
from webhook.rules.decision import Decision
from webhook.rules.interception import is_customised
from webhook.rules.limits import KEPT_PODS_OF_BYTES
from webhook.rules.objects import Pod
from webhook.rules.optin import Preserve
from webhook.rules.questions import NO_LABELS
from webhook.rules.snapshot import Request, Snapshot

_encode: Final = msgspec.json.Encoder().encode
# Compared with in every review: see ENFORCE.
_ENABLED: Final = Preserve.ENABLED.value


def decide_again(request: Request, snapshot: Snapshot, *, now: datetime) -> Decision:
    """
    Return what `decide` does, and keep it with *snapshot* for pods that are alike.

    Raises:
        UnicodeEncodeError: A text that JSON can't hold; what was decoded from JSON has none.

    """
    pod = request.object
    if not isinstance(pod, Pod) or not 0 < request.size <= KEPT_PODS_OF_BYTES:
        return decide(request, snapshot, now=now)
    # What stands in it already is read in full, and an end of its own has its own time; both are rare.
    own = (pod.metadata.labels or NO_LABELS).get(wellknown.PRESERVE, _ENABLED)
    if own != _ENABLED or request.operation != "CREATE" or request.subresource or request.excess or is_customised(pod):
        return decide(request, snapshot, now=now)
    alike = what_is_read(pod, request.namespace)
    decided = snapshot.decided
    decision = decided.find(alike, now)
    if decision is None:
        decision = decide(request, snapshot, now=now)
        decided.keep(alike, decision, now, snapshot.policies.changes)
    return decision


def what_is_read(pod: Pod, namespace: str) -> bytes:
    """
    Return all that a decision reads of a *pod* in which nothing of Istio's stands.

    Of containers that are none of Istio's it is their number.
    """
    spec = pod.spec
    return _encode(
        (
            namespace,
            pod.metadata,
            spec.node_name,
            spec.node_selector,
            spec.affinity,
            spec.tolerations,
            spec.host_network,
            spec.runtime_class_name,
            len(spec.containers or ()),
            len(spec.init_containers or ()),
        ),
    )
