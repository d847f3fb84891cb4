"""The other commands: explain, render, demo, help, completion, and the kubectl plugin."""

import json
import re

import pytest
import yaml

from tests.cli.command import APPS, CLUSTER, run
from webhook.cli.main import COMMANDS
from webhook.rules.pods import POD_QUESTIONS


def test_explain_answers_every_question_in_order() -> None:
    printed = run("explain", "--state", CLUSTER, f"{APPS}/sleep.yaml").stdout
    numbers = re.findall(r"^  [✓→·] (\d+)\. ", printed, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(POD_QUESTIONS) + 1)]
    assert re.search(r"→ \d+\. do all feasible nodes support TPROXY\?\n +mixed-nodes: ", printed)
    after = printed.partition("do all feasible nodes support TPROXY?")[2]
    assert "✓" not in after
    assert "then TPROXY (not evaluated: already decided)" in after
    assert "webhook namespace.sidecar-injector.istio.io of istio-sidecar-injector selects the pod" in printed
    assert "rule centos" in printed


def test_explain_is_for_machines_too() -> None:
    (element,) = json.loads(run("explain", "--state", CLUSTER, "-o", "json", f"{APPS}/sleep.yaml").stdout)
    assert element["reason"] == "mixed-nodes"
    *before, last = (each["answer"] for each in element["questions"])
    assert (set(before), last) == ({None}, "mixed-nodes"), "nothing stands after the answer"


def test_explain_names_files_or_what_runs() -> None:
    done = run("explain", "--state", CLUSTER, "deploy/reviews", code=2)
    assert "KIND/NAME in a cluster" in done.stderr
    assert "no cluster" in run("explain", "pod/reviews", code=2).stderr


def test_render_prints_what_a_cluster_needs() -> None:
    documents = list(yaml.safe_load_all(run("render", "crd", "rbac", "envoyfilter").stdout))
    kinds = {each["kind"] for each in documents}
    assert kinds >= {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "ServiceAccount", "EnvoyFilter"}
    (configuration,) = yaml.safe_load_all(run("render", "configuration").stdout)
    assert configuration["metadata"]["name"] == "client-ip-webhook"
    assert all(each["failurePolicy"] == "Ignore" and each["timeoutSeconds"] == 2 for each in configuration["webhooks"])


def test_render_never_sorts_after_istio() -> None:
    """No option names the configuration: it always sorts before Istio's."""
    assert "--name " not in run("render", "--help").stdout
    names = ["client-ip-webhook", "istio-revision-tag-default", "istio-sidecar-injector"]
    assert sorted(names) == names


def test_demo_shows_what_happens_and_stops_by_itself() -> None:
    printed = run("demo").stdout
    for reason in ("tproxy", "incompatible-nodes", "local", "eni-backend", "pod-security", "mode-already-set"):
        assert reason in printed, reason
    assert "+  annotations:" in printed or "+    sidecar.istio.io/interceptionMode: TPROXY" in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    printed = run(command, "--help").stdout
    assert "Usage: client-ip" in printed
    assert "Example" in printed, printed


def test_the_whole_help_names_every_command() -> None:
    printed = run("--help").stdout
    assert all(f"  {command} " in printed for command in COMMANDS)
    assert "..." not in printed.partition("Commands:")[2], "each sentence is whole"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str) -> None:
    source = run(environment={"_CLIENT_IP_COMPLETE": f"{shell}_source"}).stdout
    assert "_CLIENT_IP_COMPLETE" in source
    words = {
        "bash": {"COMP_WORDS": "client-ip ch", "COMP_CWORD": "1"},
        "zsh": {"COMP_WORDS": "client-ip ch", "COMP_CWORD": "1"},
    }
    environment = words.get(shell, {"COMP_WORDS": "client-ip ch", "COMP_CWORD": "ch"})
    found = run(environment={"_CLIENT_IP_COMPLETE": f"{shell}_complete", **environment}).stdout
    assert "check" in found


def test_kubectl_finds_its_plugin() -> None:
    printed = run("check", "--help", program="kubectl-client_ip").stdout
    assert "kubectl client-ip check" in printed


def test_the_version_is_printed() -> None:
    assert run("--version").stdout.startswith("client-ip, version ")


@pytest.mark.parametrize("arguments", [("sreve",), ("serve", "--listen"), ("render", "nonsense"), ("check",)])
def test_a_wrong_command_line_is_one_clear_line(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, code=2)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""
