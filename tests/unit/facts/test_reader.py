"""Files read by a child: the same facts as read here, the same mistakes, and no waiting."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Final

import pytest

from webhook.facts.collect import Collector
from webhook.facts.files import FilesInvalid, load
from webhook.facts.reader import load_apart, load_apart_in_slices
from webhook.rules import wellknown
from webhook.rules.nodes import NodeIndex

CLUSTER: Final = str(Path(__file__).parents[3] / "examples" / "cluster")
OWN: Final = wellknown.OWN_NAMESPACE


def node(name: str, os_image: str = "Ubuntu 22.04.4 LTS") -> dict[str, object]:
    info = {"osImage": os_image, "kernelVersion": "5.15.0", "operatingSystem": "linux"}
    metadata = {"name": name, "labels": {"pool": "a", "host": name}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"nodeInfo": info}}


def write(path: Path, *objects: dict[str, object]) -> list[str]:
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return [str(path)]


def again(paths: list[str], base: NodeIndex) -> Collector:
    return asyncio.run(load_apart_in_slices(paths, own_namespace=OWN, base=base))


def known(collector: Collector) -> dict[str, tuple[str, bool]]:
    index = collector.snapshot().nodes
    found = {name: index.node(name) for name in index.names(index.everything)}
    return {name: (each.os_image, each.compatibility.supported) for name, each in found.items() if each is not None}


def test_a_child_reads_what_would_be_read_here() -> None:
    here, apart = load([CLUSTER]), load_apart([CLUSTER], own_namespace=OWN)
    for collector in (apart, again([CLUSTER], here.snapshot().nodes)):
        assert known(collector) == known(here)
        assert collector.namespaces == here.namespaces
        assert collector.injectors == here.injectors
        assert collector.policies == here.policies


def test_nodes_that_are_gone_are_gone(tmp_path: Path) -> None:
    paths = write(tmp_path / "n.json", node("a"), node("b"))
    first = load_apart(paths, own_namespace=OWN).snapshot()
    write(tmp_path / "n.json", node("b", "CentOS Linux 7 (Core)"), node("c"))
    second = again(paths, first.nodes)
    assert known(second) == {"b": ("CentOS Linux 7 (Core)", False), "c": ("Ubuntu 22.04.4 LTS", True)}
    assert sorted(first.nodes.names(first.nodes.everything)) == ["a", "b"], "what was handed out never changes"
    write(tmp_path / "n.json")
    assert known(again(paths, second.snapshot().nodes)) == {}


def test_other_rules_classify_every_node_anew(tmp_path: Path) -> None:
    paths = write(tmp_path / "n.json", node("a"))
    first = load_apart(paths, own_namespace=OWN).snapshot()
    rule = {"name": "no-ubuntu", "osImage": "Ubuntu*", "tproxy": "Unsupported"}
    policy: dict[str, object] = {
        "apiVersion": "client-ip.dev/v1alpha1",
        "kind": "ClientIPPolicy",
        "metadata": {"name": "default"},
        "spec": {"mode": "Enforce", "nodes": {"rules": [rule]}},
    }
    write(tmp_path / "n.json", node("a"), policy)
    assert known(again(paths, first.nodes)) == {"a": ("Ubuntu 22.04.4 LTS", False)}


def test_every_mistake_comes_back_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("apiVersion: v1\nkind: Node\nmetadata: {name: a, labels: [1]}\n---\napiVersion: v1\n")
    with pytest.raises(FilesInvalid) as here:
        load([str(path)])
    with pytest.raises(FilesInvalid) as apart:
        load_apart([str(path)], own_namespace=OWN)
    assert apart.value.problems == here.value.problems
    with pytest.raises(FilesInvalid) as sliced:
        again([str(path)], Collector().snapshot().nodes)
    assert sliced.value.problems == here.value.problems


def test_where_no_child_can_start_files_are_read_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    paths = write(tmp_path / "n.json", node("a"))
    assert known(load_apart(paths, own_namespace=OWN)) == {"a": ("Ubuntu 22.04.4 LTS", True)}
    assert "cannot start a process" in caplog.text


def test_a_child_that_ends_without_a_word_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(FilesInvalid, match="ended without a result"):
        load_apart(write(tmp_path / "n.json", node("a")), own_namespace=OWN)


def test_a_pipe_of_this_process_is_read_here(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    child = os.fork()
    if child == 0:
        pipe.write_text(json.dumps(node("a")))
        os._exit(0)
    assert known(load_apart([str(pipe)], own_namespace=OWN)) == {"a": ("Ubuntu 22.04.4 LTS", True)}
    os.waitpid(child, 0)
