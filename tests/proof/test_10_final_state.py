"""Named test 10: what the policy `final-state` finds among pods that the real injector made."""

import copy
from collections.abc import Mapping
from typing import Any, Final

import yaml

from tests.parts.api import Reply
from tests.parts.process import wait_until
from tests.proof.lab import IMAGE, Lab
from tests.proof.report import Check, Report
from tests.proof.webhook import rendered

POLICY: Final = "final-state.client-ip.dev"
NONE: Final = "nothing"
MODE: Final = "sidecar.istio.io/interceptionMode"
NATIVE: Final = {"sidecar.istio.io/nativeSidecar": "true"}
TEMPLATES: Final = "inject.istio.io/templates"
METADATA: Final = {"proxy.istio.io/config": "proxyMetadata:\n  ISTIO_META_INTERCEPTION_MODE: TPROXY\n"}
OWN: Final = {"proxy.istio.io/config": "interceptionMode: REDIRECT\n"}


def test_final_state(lab: Lab, report: Report, centos: None) -> None:
    """10. The API server itself finds what came out unpreserved, whoever did it."""
    text = """Each pod is created as a dry run in an opted-in namespace, through the real injector. The rows show what
    the policy of `client-ip render final-state` reports about it in the API server's audit log: first with the webhook
    (`serve --mark-reasons`), then while the webhook is down."""
    with report.chapter("10. Final state", text) as check:
        lab.namespace("final", preserve="enabled")
        lab.namespace("bare", preserve="enabled", labels={})
        lab.plane.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(rendered("final-state")))
        found = _Found(lab, check)
        found.until_it_holds()
        found.up()
        lab.webhook.stop()
        try:
            found.down()
        finally:
            lab.webhook.start()


class _Found:
    """Creates pods, and adds a row for each."""

    def __init__(self, lab: Lab, check: Check) -> None:
        self._lab = lab
        self._check = check
        self._state = ""

    def until_it_holds(self) -> None:
        """Wait until the policy and the webhook's marks are there."""
        late = self._late()

        def holds() -> bool:
            return self._reason(self._lab.api.create(late, dry_run=True)) == "annotated-too-late"

        wait_until(holds, what="the policy final-state to hold", seconds=30, interval_seconds=0.3)

    def up(self) -> None:
        """Behind the webhook: what it left alone says why."""
        self._state = "webhook up"
        self._row("a pod that the webhook made TPROXY", NONE)
        self._row("the same with a native sidecar", NONE, annotations=NATIVE)
        self._row("a pod of a CentOS node", NONE, spec={"nodeSelector": {"kubernetes.io/hostname": "centos"}})
        self._row("REDIRECT set by the owner", NONE, annotations={MODE: "REDIRECT"})
        self._row("REDIRECT set by the owner in a ProxyConfig", NONE, annotations=OWN)
        made = self._lab.api.create(self._late(), dry_run=True)
        self._told("TPROXY requested after injection", "annotated-too-late", made)

    def down(self) -> None:
        """Without it: everything that redirects is found, and nothing else."""
        self._state = "webhook down"
        self._row("a pod", "not-preserved")
        self._row("a pod with a native sidecar", "not-preserved", annotations=NATIVE)
        self._row("TPROXY only in the proxy's environment, set by proxyMetadata", "not-preserved", annotations=METADATA)
        self._row("TPROXY set by the owner", NONE, annotations={MODE: "TPROXY"})
        self._row("TPROXY set by the owner, native sidecar", NONE, annotations={MODE: "TPROXY", **NATIVE})
        self._row("REDIRECT set by the owner", NONE, annotations={MODE: "REDIRECT"})
        self._row("NONE set by the owner", NONE, annotations={MODE: "NONE"})
        self._row("NONE set by the owner, native sidecar", NONE, annotations={MODE: "NONE", **NATIVE})
        ports = {"traffic.sidecar.istio.io/includeInboundPorts": ""}
        self._row("no inbound port is captured", NONE, annotations=ports)
        self._row("a gRPC agent", NONE, annotations={TEMPLATES: "grpc-agent"})
        router = {"containers": [{"name": "istio-proxy", "image": "auto"}]}
        self._row("a gateway by injection", NONE, annotations={TEMPLATES: "gateway"}, spec=router)
        self._row("a pod without a sidecar", NONE, labels={"sidecar.istio.io/inject": "false"})

    def _row(
        self,
        what: str,
        expected: str,
        *,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        spec: Mapping[str, Any] | None = None,
    ) -> None:
        made = self._lab.api.create(_pod("final", annotations, labels, spec), dry_run=True)
        self._told(what, expected, made)

    def _told(self, what: str, expected: str, made: Reply) -> None:
        self._check(what, self._state, "found", expected=expected, seen=self._reason(made) or NONE)

    def _reason(self, made: Reply) -> str:
        annotations = self._lab.plane.audited(made.audit_id).get("annotations", {})
        return str(annotations.get(f"{POLICY}/reason", ""))

    def _late(self) -> dict[str, Any]:
        """Return an injected pod whose annotation came later, in a namespace where nobody injects it anew."""
        made = self._lab.api.create(_pod("final", {MODE: "REDIRECT"}, None, None), dry_run=True)
        late = copy.deepcopy({key: made[key] for key in ("apiVersion", "kind", "spec")})
        kept = {key: value for key, value in made["metadata"].items() if key in {"annotations", "labels"}}
        late["metadata"] = {**kept, "name": "late", "namespace": "bare"}
        late["metadata"]["annotations"][MODE] = "TPROXY"
        return late


def _pod(
    namespace: str,
    annotations: Mapping[str, str] | None,
    labels: Mapping[str, str] | None,
    spec: Mapping[str, Any] | None,
) -> dict[str, Any]:
    metadata = {
        "name": "app",
        "namespace": namespace,
        "annotations": dict(annotations or {}),
        "labels": dict(labels or {}),
    }
    containers = {"containers": [{"name": "app", "image": IMAGE}]}
    node = {"nodeSelector": {"kubernetes.io/hostname": "node-1"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**containers, **node, **(spec or {})}}
