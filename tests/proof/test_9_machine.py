"""Named test 9: the machine's own rules, routes and interfaces, while everything of the lab is there."""

from tests.proof.conftest import App
from tests.proof.namespaces import host_state
from tests.proof.node_agent import RunningPod
from tests.proof.report import Report


def test_the_machine_itself_is_left_alone(
    host_before: dict[str, list[str]], report: Report, before: App, after: App, ingress: RunningPod
) -> None:
    """9. Whatever ran so far ran inside the lab's network namespaces; asked once more when they are gone."""
    text = """The rules of Istio, kube-proxy and the lab exist only in the lab's network namespaces. The rules of the
    machine are compared with those from before the lab started, and once more at the end, when all namespaces and
    processes are gone."""
    with report.chapter("9. The machine itself", text) as check:
        now = host_state()
        for what, lines in host_before.items():
            changed = sorted(set(now[what]) ^ set(lines))
            seen = "as before" if now[what] == lines else f"changed: {changed or 'their order'}"
            check("the machine", "-", what, expected="as before", seen=seen)
        istio = [line for lines in now.values() for line in lines if "ISTIO" in line]
        check("the machine", "-", "rules of Istio", expected="none", seen=", ".join(istio) or "none")
