"""Named test 3: nodes that do not support TPROXY, and a real scheduler that may choose them."""

from typing import Any, Final

import pytest

from tests.proof.conftest import Callers
from tests.proof.lab import Lab
from tests.proof.observe import add_rows, http
from tests.proof.report import Report

pytestmark: Final = pytest.mark.usefixtures("centos")

ANYWHERE: Final[dict[str, Any]] = {}
ON_CENTOS: Final = {"nodeSelector": {"kubernetes.io/hostname": "centos"}}
NOT_CENTOS: Final = {
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [
                            {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["centos"]},
                        ],
                    },
                ],
            },
        },
    },
}


def test_pods_follow_the_nodes_that_may_take_them(lab: Lab, report: Report, callers: Callers) -> None:
    """3. A pod that may land on CentOS stays REDIRECT, with the reason; one that can't is TPROXY."""
    text = """The cluster has a CentOS 7 node and Debian nodes. All nodes use the kernel of this machine, so the rows
    show the decision and the scheduling only. The namespace is opted in. The pods have different scheduling
    constraints, and kube-scheduler places them."""
    with report.chapter("3. Nodes", text) as check:
        lab.namespace("nodes", preserve="enabled")
        for name, spec, reason, mode, nodes in (
            ("anywhere", ANYWHERE, "mixed-nodes", "REDIRECT", ("centos", "node-1")),
            ("on-centos", ON_CENTOS, "incompatible-nodes", "REDIRECT", ("centos",)),
            ("not-on-centos", NOT_CENTOS, "tproxy", "TPROXY", ("node-1",)),
        ):
            created = lab.create_pod("nodes", name, spec=spec)
            told = lab.decision("nodes", name)
            what = f"creating a pod that may run {name.replace('-', ' ')}"
            check(what, mode, "our decision", expected=reason, seen=told["reason"])
            warned = any(reason in warning and "centos" in warning for warning in created.warnings)
            named = "the creator gets a warning with reason and node"
            check(what, mode, named, expected=mode == "REDIRECT", seen=warned)
            pod = lab.agent.run("nodes", name)
            placed = pod.stored["spec"]["nodeName"]
            allowed = " or ".join(nodes)
            seen_node = allowed if placed in nodes else placed
            check(what, mode, "kube-scheduler's choice", expected=allowed, seen=seen_node)
            check(what, mode, "mode of the iptables rules", expected=mode, seen=pod.mode)
            seen = http(pod, callers.plain.netns.name, pod.address)
            client = callers.plain.address if mode == "TPROXY" else "127.0.0.6"
            add_rows(check, report.names, f"HTTP, pod without a sidecar → pod {name}", mode, seen, expected=client)
