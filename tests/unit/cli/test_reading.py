"""What `check` reads, whatever form it comes in, and what it says of what is not there."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner, Result

from webhook.cli.main import client_ip
from webhook.facts.kubeconfig import KubeconfigUnreadable, context_namespace
from webhook.facts.packed import Archive, unpack
from webhook.facts.problem import Problem
from webhook.rules.templates import MAX_TEMPLATES

LABELS: Final = {"client-ip.dev/preserve": "enabled", "istio-injection": "enabled"}
SHOP: Final = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": LABELS}}
NODE: Final = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "good"},
    "status": {"nodeInfo": {"osImage": "Ubuntu 24.04 LTS", "kernelVersion": "6.8.0", "operatingSystem": "linux"}},
}
INJECTOR: Final = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingWebhookConfiguration",
    "metadata": {"name": "istio-sidecar-injector", "labels": {"app": "sidecar-injector"}},
    "webhooks": [
        {
            "name": "namespace.sidecar-injector.istio.io",
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}},
            "objectSelector": {
                "matchExpressions": [{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}]
            },
        }
    ],
}
STATE: Final = (SHOP, NODE, INJECTOR)
CONTAINERS: Final = [{"name": "c", "image": "i"}]


def pod(name: str = "web", namespace: str | None = "shop", **metadata: Any) -> dict[str, Any]:
    around = {"namespace": namespace} if namespace is not None else {}
    made = {"name": name, **around, **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": {"containers": CONTAINERS}}


def as_yaml(*documents: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump_all(documents, allow_unicode=True).encode()


class Check:
    """`client-ip check` in this process, with a state of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = self.file("state.yaml", as_yaml(*STATE))

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def run(self, *arguments: str | Path, given: bytes = b"", **environment: str) -> Result:
        environment = {"HOME": str(self.folder), "KUBECONFIG": "", **environment}
        options = {"input": given, "env": environment, "standalone_mode": False}
        return CliRunner().invoke(client_ip, ["check", *map(str, arguments)], **options)  # type: ignore[arg-type]

    def reasons(self, *arguments: str | Path, given: bytes = b"", **environment: str) -> dict[str, str]:
        done = self.run("-o", "json", *arguments, given=given, **environment)
        assert done.exception is None, done.exception
        return {
            f"{each['namespace']}/{each['kind']}/{each['name']}": each["reason"] for each in json.loads(done.stdout)
        }


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(tmp_path)


# --- Nulls, as the API server stores them


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"annotations": {"traffic.sidecar.istio.io/includeInboundPorts": None}}, "inbound-not-captured"),
        ({"annotations": {"sidecar.istio.io/interceptionMode": None}}, "mode-already-set"),
        ({"labels": {"sidecar.istio.io/inject": None}, "annotations": {"sidecar.istio.io/inject": "false"}}, "tproxy"),
        ({"labels": None, "annotations": None}, "tproxy"),
        ({"labels": {"client-ip.dev/preserve": None}}, "tproxy"),
        ({"annotations": {"proxy.istio.io/config": None}}, "tproxy"),
    ],
)
def test_a_null_in_a_map_is_empty(check: Check, metadata: dict[str, Any], reason: str) -> None:
    given = as_yaml(pod(**metadata))
    assert check.reasons("--state", check.state, "-", given=given) == {"shop/Pod/web": reason}
    printed = check.run("--state", check.state, "-o", "yaml", "-", given=given)
    (again,) = yaml.safe_load_all(printed.stdout)
    assert again["metadata"].items() >= {key: value for key, value in metadata.items() if value is None}.items() or (
        reason == "tproxy"
    )


# --- Files


def tar(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("latest.yaml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


NODES: Final = {"apiVersion": "v1", "kind": "NodeList", "items": [{k: v for k, v in NODE.items() if k != "kind"}]}
BUNDLE: Final = {
    "must-gather/cluster-scoped-resources/core/nodes/good.yaml": as_yaml(NODE),
    "must-gather/cluster-scoped-resources/core/namespaces.yaml": as_yaml(SHOP),
    "must-gather/webhooks.json": json.dumps([INJECTOR]).encode(),
    "must-gather/namespaces/shop/pods.yaml": as_yaml(pod("other")),
    "must-gather/namespaces/shop/web/c/current.log": b"kind: Node\n" * 100,
    "must-gather/version.json": b'{"kind": "NodeVersion"}',
    "must-gather/broken.yaml": b"kind: Node\na: [",
}
PACKED: Final[dict[str, Callable[[], bytes]]] = {
    "state.yaml.gz": lambda: gzip.compress(as_yaml(*STATE)),
    "state.gz": lambda: gzip.compress(as_yaml(*STATE)),
    "state.json.bz2": lambda: bz2.compress(json.dumps({"kind": "List", "apiVersion": "v1", "items": STATE}).encode()),
    "state.yaml.xz": lambda: lzma.compress(as_yaml(*STATE)),
    "state.YAML": lambda: as_yaml(*STATE),
    "state.Json": lambda: "\n".join(map(json.dumps, STATE)).encode(),
    "bundle.tgz": lambda: tar(BUNDLE),
    "bundle.tar": lambda: tar(BUNDLE, "w"),
    "bundle.tar.bz2": lambda: tar(BUNDLE, "w:bz2"),
    "bundle.tar.xz": lambda: tar(BUNDLE, "w:xz"),
    "bundle.zip": lambda: zipped(BUNDLE),
    "compressed-twice.tgz": lambda: tar({name + ".gz": gzip.compress(data) for name, data in BUNDLE.items()}),
    "nested.tar.gz": lambda: tar({"report.txt": b"x", "inner/must-gather.tar.gz": tar(BUNDLE)}),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_state_is_read_however_it_is_packed(check: Check, name: str) -> None:
    state = check.file(name, PACKED[name]())
    given = as_yaml(pod())
    assert check.reasons("--state", state, "-", given=given) == {"shop/Pod/web": "tproxy"}
    folder = check.folder / "folder"
    folder.mkdir()
    state.rename(folder / name)
    if name != "state.gz":  # a folder's files are taken by their names
        assert check.reasons("--state", folder, "-", given=given) == {"shop/Pod/web": "tproxy"}
    manifest = check.file("m.yaml", given)
    piped = check.reasons("--state", "-", manifest, given=PACKED[name]())
    assert piped == {"shop/Pod/web": "tproxy"}, "and from standard input"


SANDBOX: Final = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "fast"},
    "handler": "kata-qemu",
}
CLASS: Final = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "mine"},
    "spec": {"controllerName": "istio.io/gateway-controller"},
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("listed", [False, True], ids=["each by itself", "typed lists"])
def test_every_kind_of_fact_is_found_in_a_dump(check: Check, encoding: str, listed: bool) -> None:  # noqa: FBT001
    """Each in a file of its own, as must-gather has them."""
    facts = (*STATE, SANDBOX, CLASS)
    files = {}
    for each in facts:
        kind = str(each["kind"])
        document = {"apiVersion": each["apiVersion"], "kind": f"{kind}List", "items": [each]} if listed else each
        files[f"dump/{kind.lower()}.yaml"] = as_yaml(document).decode().encode(encoding)
    state = check.file("dump.tgz", tar(files))
    labels = {"gateway.networking.k8s.io/gateway-class-name": "mine"}
    gateway = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gateway", "namespace": "shop", "labels": labels},
        "spec": {"type": "LoadBalancer"},
    }
    sandboxed = {**pod("sandboxed"), "spec": {"containers": CONTAINERS, "runtimeClassName": "fast"}}
    found = check.reasons("--state", state, "-", given=as_yaml(pod(), sandboxed, gateway))
    assert found == {
        "shop/Pod/web": "tproxy",
        "shop/Pod/sandboxed": "sandboxed",
        "shop/Service/gateway": "local",
    }


def test_an_older_version_of_a_fact_says_the_same(check: Check) -> None:
    older = (SHOP, NODE, {**INJECTOR, "apiVersion": "admissionregistration.k8s.io/v1beta1"})
    state = check.file("older.yaml", as_yaml(*older, {**SANDBOX, "apiVersion": "node.k8s.io/v1beta1"}))
    sandboxed = {**pod("sandboxed"), "spec": {"containers": CONTAINERS, "runtimeClassName": "fast"}}
    found = check.reasons("--state", state, "-", given=as_yaml(pod(), sandboxed))
    assert found == {"shop/Pod/web": "tproxy", "shop/Pod/sandboxed": "sandboxed"}


def test_pod_templates_beyond_the_limit_are_named(check: Check) -> None:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": CONTAINERS}}
    many = {
        "apiVersion": "example.com/v1",
        "kind": "Many",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"tasks": [{"template": template}] * (MAX_TEMPLATES + 1)},
    }
    done = check.run("--state", check.state, "-", given=as_yaml(many))
    assert done.exception is None
    assert f"not decided: pod templates of Many beyond the first {MAX_TEMPLATES}" in done.stderr


def test_what_of_a_dump_is_not_read_is_named(check: Check) -> None:
    bundle = check.file("bundle.tgz", tar(BUNDLE))
    done = check.run("--state", check.state, bundle)
    assert done.exception is None
    assert "1 files that are neither YAML nor JSON were skipped" in done.stderr
    assert "no Kubernetes objects in must-gather/version.json" in done.stderr
    assert "must-gather/broken.yaml" in done.stderr
    assert "shop/Pod/other" in done.stdout


def damaged(random: Random, data: bytes) -> bytes:
    """Return *data* with a few bytes changed, taken out and put in."""
    text = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        at = random.randrange(len(text))
        cut = at + random.choice((0, 1, 1, 8))
        text[at:cut] = random.choice((b"", b"\0", b"\xff\xff", b"-1", b"7", bytes([random.randrange(256)])))
        text = text or bytearray(b"x")
    return bytes(text)


def test_a_damaged_archive_is_a_mistake_and_no_crash() -> None:
    """Whatever its headers say: readers of archives raise nearly anything."""
    seeds = (zipped(BUNDLE), tar(BUNDLE), gzip.compress(tar(BUNDLE)), gzip.compress(as_yaml(*STATE)))
    random = Random(7)  # noqa: S311  # the same at each run
    messages = set()
    for number in range(2_000):
        problems: list[Problem] = []
        for each in unpack("a", damaged(random, seeds[number % len(seeds)]), Archive(), problems):
            assert len(each.data) < 1 << 20
        messages |= {each.message for each in problems}
    assert len(messages) > 5


BAD: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "cut.gz": (lambda: gzip.compress(as_yaml(*STATE))[:-20], "cannot be unpacked"),
    "cut.tgz": (lambda: tar(BUNDLE)[:200], "cannot be unpacked"),
    "damaged.xz": (lambda: lzma.compress(b"a: b" * 1000)[:-30] + b"\0" * 30, "cannot be unpacked"),
    "unsupported.zip": (
        lambda: zipped(BUNDLE).replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\x99"),
        "cannot be unpacked",
    ),
    "damaged.zip": (lambda: zipped(BUNDLE)[:100], "cannot be unpacked"),
    "state.yaml.zst": (lambda: b"\x28\xb5\x2f\xfd" + b"\0" * 20, "compressed by zstd"),
    "state.7z": (lambda: b"7z\xbc\xaf\x27\x1c" + b"\0" * 20, "a 7z archive"),
    "latin.yaml": (lambda: "kind: größe".encode("latin-1"), "not UTF-8"),
    "unmarked.yaml": (lambda: "kind: Pod".encode("utf-16-le"), "UTF-16 without a byte order mark"),
    "unmarked-big.yaml": (lambda: "kind: Pod".encode("utf-16-be"), "UTF-16 without a byte order mark"),
    "utf32.yaml": (lambda: "kind: Pod".encode("utf-32"), "UTF-32"),
    "half.yaml": (lambda: "kind: Pod".encode("utf-16")[:-1], "not UTF-16"),
    "stream.json": (lambda: json.dumps(pod()).encode() + b"\n{", "(document 2)"),
    "nan.json": (lambda: json.dumps(pod()).encode() + b'\n{"a": NaN}', "NaN"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_can_not_be_read_is_named(check: Check, name: str) -> None:
    make, said = BAD[name]
    done = check.run("--state", check.state, check.file(name, make()))
    assert done.exception is not None
    assert said in str(done.exception)
    assert name in str(done.exception)


PACKS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "tar": lambda data: tar({"a.yaml": data[:10], "b.yaml": data}),
    "zip": lambda data: zipped({"a.yaml": data[:10], "b.yaml": data}),
    "gzip in tar": lambda data: tar({"a.yaml.gz": gzip.compress(data)}),
}


@pytest.mark.parametrize("pack", PACKS)
def test_nothing_is_unpacked_beyond_the_limit(pack: str) -> None:
    problems: list[Problem] = []
    bomb = PACKS[pack](b"# " + b"x" * (1 << 20))
    found = list(unpack("bomb", bomb, Archive(left=1 << 16), problems))
    assert sum(len(each.data) for each in found) < 1 << 16
    assert "when unpacked" in problems[0].message


def test_standard_input_is_read_once(check: Check) -> None:
    assert "read only once" in str(check.run("--state", "-", "-").exception)


# --- The namespace of the kubeconfig's context

KUBECONFIG: Final = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "one",
    "contexts": [
        {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
        {"name": "two", "context": {"cluster": "c", "user": "u"}},
        {"name": "three", "context": {"cluster": "c", "user": "u", "namespace": "other"}},
    ],
}


def test_an_object_without_a_namespace_is_where_kubectl_would_put_it(check: Check) -> None:
    config = check.file("config", as_yaml(KUBECONFIG))
    given = as_yaml(pod(namespace=None))
    state = ("--state", check.state)
    assert check.reasons(*state, "--kubeconfig", config, "-", given=given) == {"shop/Pod/web": "tproxy"}
    assert check.reasons(*state, "-", given=given, KUBECONFIG=str(config)) == {"shop/Pod/web": "tproxy"}
    two = check.reasons(*state, "--kubeconfig", config, "--context", "two", "-", given=given)
    assert two == {"default/Pod/web": "namespace-unknown"}
    named = check.reasons(*state, "--kubeconfig", config, "-n", "else", "-", given=given)
    assert named == {"else/Pod/web": "namespace-unknown"}
    (check.folder / ".kube").mkdir()
    config.rename(check.folder / ".kube" / "config")
    assert check.reasons(*state, "-", given=given) == {"shop/Pod/web": "tproxy"}


def test_a_kubeconfig_is_read_as_kubectl_merges_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(as_yaml({"current-context": "three"}))
    second.write_bytes(as_yaml(KUBECONFIG))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/absent:{first}:{second}")
    assert context_namespace() == "other"
    assert context_namespace(None, "one") == "shop"
    assert context_namespace(str(second)) == "shop"
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    assert context_namespace() == "default"
    first.write_text("a: [")
    monkeypatch.setenv("KUBECONFIG", str(first))
    assert context_namespace() == "default", "nobody named it"
    for kubeconfig, context in ((str(first), None), (str(tmp_path / "absent"), None), (str(second), "four")):
        with pytest.raises(KubeconfigUnreadable):
            context_namespace(kubeconfig, context)


# --- What files do not hold


@pytest.mark.parametrize(
    ("state", "reason", "advice", "said"),
    [
        ((SHOP, NODE), "injectors-unknown", "to --state", "no MutatingWebhookConfiguration of a sidecar injector"),
        ((NODE, INJECTOR), "namespace-unknown", "add it to --state", "--state has no Namespace"),
        ((SHOP, INJECTOR), "nodes-unknown", "add the cluster's nodes to --state", "--state has no Node"),
    ],
)
def test_absence_in_files_is_no_fact(
    check: Check, state: tuple[dict[str, Any], ...], reason: str, advice: str, said: str
) -> None:
    file = check.file("half.yaml", as_yaml(*state))
    given = as_yaml(pod("a"), pod("b"))
    done = check.run("--strict", "--state", file, "-", given=given)
    assert done.return_value == 1
    assert done.stdout.count(reason) == 2
    assert advice in done.stdout
    assert "recreate" not in done.stdout
    assert done.stderr.count(said) == 1, "once, however many objects"
    assert "2 objects: 2 would lose the client's IP" in done.stdout


def test_a_whole_state_lacks_nothing(check: Check) -> None:
    done = check.run("--state", check.state, "-", given=as_yaml(pod()))
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "1 object: 1 patched"


def test_a_namespace_among_manifests_joins_what_the_state_has(check: Check) -> None:
    bare = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "a"}}}
    given = as_yaml(bare, pod())
    assert check.reasons("--state", check.state, "-", given=given) == {"shop/Pod/web": "tproxy"}
    bare["metadata"] = {"name": "shop", "labels": {"client-ip.dev/preserve": "disabled"}}
    given = as_yaml(pod(), bare)
    assert check.reasons("--state", check.state, "-", given=given) == {"shop/Pod/web": "opted-out"}
    alone = as_yaml({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}}, pod(namespace="new"))
    assert check.reasons("--state", check.state, "-", given=alone) == {"new/Pod/web": "not-opted-in"}


# --- What is decided, and what is named

TEMPLATE: Final = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": CONTAINERS}}


def test_pod_templates_are_decided_and_the_rest_is_named(check: Check) -> None:
    others = (
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "spec": {"template": TEMPLATE}},
        {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "spec": {"template": TEMPLATE}},
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayCluster",
            "spec": {"head": {"template": TEMPLATE}, "template": TEMPLATE},
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"},
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "spec": {"gatewayClassName": "istio"}},
        {"apiVersion": "istio.alibabacloud.com/v1beta1", "kind": "IstioGateway", "spec": {"gatewayType": "ingress"}},
    )
    given = as_yaml(*({**each, "metadata": {"name": "x", "namespace": "shop"}} for each in others[:4]))
    given += b"---\n" + as_yaml(*({**each, "metadata": {"name": "z"}} for each in others[4:]))
    found = json.loads(check.run("--state", check.state, "-n", "shop", "-o", "json", "-", given=given).stdout)
    assert [(each["kind"], each["reason"], each["template"]) for each in found] == [
        ("Rollout", "tproxy", "spec.template"),
        ("Service", "tproxy", "spec.template"),
        ("RayCluster", "tproxy", "spec.template"),
        ("RayCluster", "tproxy", "spec.head.template"),
    ]
    done = check.run("--state", check.state, "-n", "shop", "-", given=given)
    assert "shop/RayCluster/x spec.head.template " in done.stdout
    assert "not decided: ConfigMap shop/x\n" in done.stderr
    assert "not decided: ClusterRole z\n" in done.stderr
    (gateway,) = (line for line in done.stderr.splitlines() if "not decided: Gateway shop/z" in line)
    assert "client-ip render gateway-defaults" in gateway
    (asm,) = (line for line in done.stderr.splitlines() if "not decided: IstioGateway shop/z" in line)
    assert "spec.externalTrafficPolicy: Local" in asm
    printed = check.run("--state", check.state, "-n", "shop", "-o", "yaml", "-", given=given)
    assert list(yaml.safe_load_all(printed.stdout)) == list(yaml.safe_load_all(given)), (
        "their pods are patched, not they"
    )


def test_a_template_without_a_name_is_a_mistake_with_its_place(check: Check) -> None:
    document = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "spec": {"template": TEMPLATE}}
    assert "metadata.name: required" in str(check.run("--state", check.state, "-", given=as_yaml(document)).exception)


def test_what_only_looks_like_a_pod_template_is_named(check: Check) -> None:
    """Of a kind that is not Kubernetes' own: its API is another, and the webhook lets it through."""
    template = {"spec": {"containers": CONTAINERS, "tolerations": ["spot"]}}
    document = {
        "apiVersion": "x.example.com/v1",
        "kind": "Fleet",
        "metadata": {"name": "f"},
        "spec": {"template": template},
    }
    done = check.run("--state", check.state, "-", given=as_yaml(document, pod()))
    assert done.exception is None
    assert "not decided: spec.template of Fleet is not a pod template" in done.stderr
    assert "1 object: 1 patched" in done.stdout


def test_a_line_of_counts_ends_it(check: Check) -> None:
    gateway = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "g", "namespace": "shop", "labels": {"istio": "ingressgateway"}},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
    }
    given = as_yaml(
        pod("a"),
        pod("b"),
        pod("c", annotations={"sidecar.istio.io/interceptionMode": "REDIRECT"}),
        pod("d", labels={"client-ip.dev/preserve": "disabled"}),
        pod("e", labels={"client-ip.dev/preserve": "audit"}),
        gateway,
    )
    counts = (
        "6 objects: 2 patched, 1 would be patched (audit), 1 preserved without a change, 1 would lose the client's IP, "
        "1 not applicable"
    )
    table = check.run("--state", check.state, "-", given=given)
    assert table.stdout.splitlines()[-1] == counts
    for output in ("json", "yaml"):
        done = check.run("--state", check.state, "-o", output, "-", given=given)
        assert done.stderr.splitlines()[-1] == counts
        assert counts not in done.stdout
    printed = list(yaml.safe_load_all(check.run("--state", check.state, "-o", "yaml", "-", given=given).stdout))
    assert printed[-1] == gateway, "Local by its owner's hand"
