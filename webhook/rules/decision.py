"""
The closed list of Reasons and what a Decision says.

The same Reason is the metric's label, the audit annotation, the warning and the report's row. Answer and Decision are
msgspec Structs: one of each is made for every review, in a tenth of a frozen dataclass's time.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Final

import msgspec

from webhook.rules.limits import NAMED, WARNING_LIMIT
from webhook.rules.patch import NOTHING, Patch


class Outcome(StrEnum):
    """What a Reason means for the client's IP."""

    PRESERVED = "preserved"
    HEADER = "header"
    LOST = "lost"
    WAIVED = "waived"
    NOT_ASKED = "not-asked"


class Reason(StrEnum):
    """Why an object was decided as it was."""

    TPROXY = "tproxy"
    LOCAL = "local"
    NO_SIDECAR = "no-sidecar"
    INBOUND_NOT_CAPTURED = "inbound-not-captured"
    ENI_BACKEND = "eni-backend"
    LB_KEEPS_CLIENT = "lb-keeps-client"
    X_FORWARDED_FOR = "x-forwarded-for"
    PROXY_PROTOCOL = "proxy-protocol"
    ALREADY_INJECTED = "already-injected"
    MODE_ALREADY_SET = "mode-already-set"
    POD_SECURITY = "pod-security"
    INCOMPATIBLE_NODES = "incompatible-nodes"
    MIXED_NODES = "mixed-nodes"
    NO_FEASIBLE_NODE = "no-feasible-node"
    NODES_UNKNOWN = "nodes-unknown"
    NAMESPACE_UNKNOWN = "namespace-unknown"
    NO_POLICY = "no-policy"
    POLICY_INVALID = "policy-invalid"
    LOCAL_UNSAFE = "local-unsafe"
    LB_HIDES_CLIENT = "lb-hides-client"
    TOO_LARGE = "too-large"
    WAYPOINT = "waypoint"
    INJECTORS_UNKNOWN = "injectors-unknown"
    SANDBOXED = "sandboxed"
    PROXY_CUSTOMISED = "proxy-customised"
    EXCEPTED = "excepted"
    NOT_OPTED_IN = "not-opted-in"
    OPTED_OUT = "opted-out"
    POLICY_DISABLED = "policy-disabled"
    NOT_A_GATEWAY = "not-a-gateway"
    NOT_EXTERNAL = "not-external"
    BEING_DELETED = "being-deleted"
    NOT_HANDLED = "not-handled"


OUTCOMES: Final[dict[Reason, Outcome]] = {
    **dict.fromkeys(
        (
            Reason.TPROXY,
            Reason.LOCAL,
            Reason.NO_SIDECAR,
            Reason.INBOUND_NOT_CAPTURED,
            Reason.ENI_BACKEND,
            Reason.LB_KEEPS_CLIENT,
        ),
        Outcome.PRESERVED,
    ),
    **dict.fromkeys((Reason.X_FORWARDED_FOR, Reason.PROXY_PROTOCOL), Outcome.HEADER),
    **dict.fromkeys(
        (
            Reason.ALREADY_INJECTED,
            Reason.MODE_ALREADY_SET,
            Reason.POD_SECURITY,
            Reason.INCOMPATIBLE_NODES,
            Reason.MIXED_NODES,
            Reason.NO_FEASIBLE_NODE,
            Reason.NODES_UNKNOWN,
            Reason.NAMESPACE_UNKNOWN,
            Reason.NO_POLICY,
            Reason.POLICY_INVALID,
            Reason.LOCAL_UNSAFE,
            Reason.LB_HIDES_CLIENT,
            Reason.TOO_LARGE,
            Reason.WAYPOINT,
            Reason.INJECTORS_UNKNOWN,
            Reason.SANDBOXED,
            Reason.PROXY_CUSTOMISED,
        ),
        Outcome.LOST,
    ),
    Reason.EXCEPTED: Outcome.WAIVED,
    **dict.fromkeys(
        (
            Reason.NOT_OPTED_IN,
            Reason.OPTED_OUT,
            Reason.POLICY_DISABLED,
            Reason.NOT_A_GATEWAY,
            Reason.NOT_EXTERNAL,
            Reason.BEING_DELETED,
            Reason.NOT_HANDLED,
        ),
        Outcome.NOT_ASKED,
    ),
}
"""
Each Reason's outcome; the two that depend on the mode in effect are preserved where that is TPROXY, or where nothing
captures inbound traffic.
"""

ADVICE: Final[dict[Reason, str]] = {
    Reason.TPROXY: "the application sees its caller's IP",
    Reason.LOCAL: "applications behind the gateway find the client in X-Forwarded-For",
    Reason.NO_SIDECAR: "nothing to do: without a sidecar the caller's IP is not lost",
    Reason.INBOUND_NOT_CAPTURED: "nothing to do: the sidecar does not capture inbound traffic",
    Reason.ENI_BACKEND: "nothing to do: the load balancer sends traffic directly to the pods",
    Reason.X_FORWARDED_FOR: "the application must read X-Forwarded-For; docs/fallback.md says which entry",
    Reason.ALREADY_INJECTED: "the mode is fixed at injection: client-ip-webhook must sort before Istio's webhooks",
    Reason.MODE_ALREADY_SET: "the object or its mesh sets the mode; remove the setting to let the policy decide",
    Reason.POD_SECURITY: "TPROXY needs NET_ADMIN and root: allow privileged or set fallback XForwardedFor",
    Reason.INCOMPATIBLE_NODES: "schedule the pod on nodes that support TPROXY, or set fallback XForwardedFor",
    Reason.MIXED_NODES: "exclude these nodes with a nodeSelector or affinity, or set fallback XForwardedFor",
    Reason.NO_FEASIBLE_NODE: "check nodeSelector, node affinity and tolerations against the nodes",
    Reason.NODES_UNKNOWN: "the webhook has not synced any nodes yet; recreate the pod later",
    Reason.NAMESPACE_UNKNOWN: "the webhook does not know this namespace yet; recreate the object",
    Reason.NO_POLICY: "no ClientIPPolicy matches; extend one, or delete the object that replaces the built-in default",
    Reason.POLICY_INVALID: "fix the ClientIPPolicy: kubectl get clientippolicies shows its condition Accepted",
    Reason.TOO_LARGE: "an object that exceeds a limit is not changed (docs/security.md); make it smaller",
    Reason.WAYPOINT: "the application sees the waypoint; label the Service or its namespace istio.io/use-waypoint=none",
    Reason.INJECTORS_UNKNOWN: "add the MutatingWebhookConfigurations of the sidecar injectors to --state",
    Reason.LOCAL_UNSAFE: "Local would break the Service: see docs/load-balancers.md",
    Reason.LB_HIDES_CLIENT: "use the PROXY protocol, or the load balancer's own setting: see docs/load-balancers.md",
    Reason.LB_KEEPS_CLIENT: "nothing to do: the load balancer keeps the client's IP",
    Reason.PROXY_PROTOCOL: "set gatewayTopology.proxyProtocol in the gateway's proxy.istio.io/config",
    Reason.SANDBOXED: "the sandbox has its own kernel: see nodes.runtimeClasses, or set fallback XForwardedFor",
    Reason.PROXY_CUSTOMISED: "TPROXY runs as root: remove runAsNonRoot and runAsUser, or set fallback XForwardedFor",
    Reason.EXCEPTED: "an active exception in the policy covers the object",
    Reason.NOT_OPTED_IN: "label the namespace client-ip.dev/preserve=enabled to opt in",
    Reason.OPTED_OUT: "the label client-ip.dev/preserve=disabled opts out",
    Reason.POLICY_DISABLED: "the policy's mode is Disabled",
    Reason.NOT_A_GATEWAY: "only ingress gateways' Services are changed; see services.selectors in the policy",
    Reason.NOT_EXTERNAL: "the Service is not reachable from outside the cluster",
    Reason.BEING_DELETED: "objects that are being deleted are not changed",
    Reason.NOT_HANDLED: "only Pods at CREATE and Services at CREATE and UPDATE are decided",
}
"""What each Reason means for who asked, or what to do about it; one line each."""


class Mode(StrEnum):
    """How far a decision goes: the weaker of what the object opted into and what the policy allows."""

    ENFORCE = "enforce"
    AUDIT = "audit"
    DISABLED = "disabled"


ENFORCE: Final = Mode.ENFORCE
"""For what every review asks: to read a member from its class costs a thousand instructions on Python 3.11."""


class Answer(msgspec.Struct, frozen=True):
    """What the first question that answers says."""

    reason: Reason
    cause: str
    patch: Patch = NOTHING
    preserved: bool = False
    """The mode in effect is TPROXY, or nothing is captured (`already-injected`, `mode-already-set`)."""
    warnings: tuple[str, ...] = ()
    """More to say, whatever the outcome."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One Reason, the fact that it rests on, the mode in effect, and what is to be patched."""

    reason: Reason
    cause: str
    mode: Mode
    outcome: Outcome
    patch: Patch = NOTHING
    would_patch: Patch = NOTHING
    """What `enforce` would patch, in audit."""
    mark: Patch = NOTHING
    """What says that the object is left alone on purpose, where marks are asked for; apart from *patch*."""
    policy: str = ""
    warnings: tuple[str, ...] = ()
    invalid_preserve: str = ""
    """What is wrong with an opt-in label, where one is."""

    @property
    def message(self) -> str:
        """The cause and what to do about it, for people."""
        return f"{self.cause}; {ADVICE[self.reason]}"


def one_line(text: str, limit: int = WARNING_LIMIT) -> str:
    """
    Return *text* as one line of at most *limit* characters, without control or bidirectional characters.

    No more of a long text is looked at than can be shown: who wrote it may have written megabytes.
    """
    if len(text) <= limit and text.isprintable():
        return text
    head = text[: 2 * limit]
    # What is not printable is a line break, a control or a format character: U+202E and its like turn a line around.
    line = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    return line if len(line) <= limit and len(head) == len(text) else line[: limit - 1] + "…"


def shown(text: str) -> str:
    r"""
    Return *text*, which anybody may have written, whole and in one line, without a character that a terminal obeys.

    What is not printable, such as a line break or U+202E, is spelled as Python spells it (`\n`, `\u202e`).
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() if each != "\t" else " " for each in text
    )


def shown_lines(text: str) -> str:
    """Return *text*, of several lines of ours, each as it is `shown`."""
    return "\n".join(map(shown, text.split("\n")))


def named(names: Collection[str]) -> str:
    """Return the first few of *names* and how many more there are."""
    shown = ", ".join(one_line(name, 64) for _, name in zip(range(NAMED), names, strict=False))
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
