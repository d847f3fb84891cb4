"""Named test 9: the machine's own rules, routes and interfaces, while everything of the lab is there."""

from tests.proof.conftest import App
from tests.proof.namespaces import host_state
from tests.proof.node_agent import RunningPod
from tests.proof.report import Report


def test_the_machine_itself_is_left_alone(
    host_before: dict[str, list[str]], report: Report, before: App, after: App, ingress: RunningPod
) -> None:
    """9. Whatever ran so far ran inside the lab's network namespaces; asked once more when they are gone."""
    text = """Istio's rules, kube-proxy's and the lab's own are in the lab's network namespaces alone. The machine's are
    compared with what they were before the lab started; once more, with namespaces and processes gone, at the end."""
    with report.chapter("9. The machine itself", text) as check:
        now = host_state()
        for what, lines in host_before.items():
            changed = sorted(set(now[what]) ^ set(lines))
            seen = "as before" if now[what] == lines else f"changed: {changed or 'their order'}"
            check("the machine's own", "-", what, expected="as before", seen=seen)
        istio = [line for lines in now.values() for line in lines if "ISTIO" in line]
        check("the machine's own", "-", "rules of Istio's", expected="none", seen=", ".join(istio) or "none")
