"""`check -o sarif` and `-o github`: what is not preserved, at its file and line; and texts that stay texts."""

import json
from pathlib import Path

import yaml

from tests.cli.command import APPS, CLUSTER, run

STATE = ("--state", CLUSTER)


def test_sarif_names_the_file_and_line() -> None:
    log = json.loads(run("check", *STATE, "-o", "sarif", APPS).stdout)
    assert log["version"] == "2.1.0"
    (made,) = log["runs"]
    rules = [each["id"] for each in made["tool"]["driver"]["rules"]]
    found = {}
    for result in made["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        found[place["artifactLocation"]["uri"], place["region"]["startLine"]] = (result["ruleId"], result["level"])
        assert len(result["partialFingerprints"]["clientIP/v1"]) == 16
    assert found["examples/apps/legacy.yaml", 2] == ("incompatible-nodes", "error")
    assert not [file for file, _ in found if file.endswith("httpbin.yaml")]
    assert len({line for file, line in found if file.endswith("legacy.yaml")}) == 3


def test_sarif_of_what_is_all_preserved_is_an_empty_run() -> None:
    log = json.loads(run("check", *STATE, "-o", "sarif", f"{APPS}/httpbin.yaml").stdout)
    assert log["runs"][0]["results"] == []


def test_github_shows_it_at_the_line() -> None:
    said = run("check", *STATE, "-o", "github", "--strict", f"{APPS}/legacy.yaml", code=1).stdout.splitlines()
    assert said[0].startswith(
        f"::error file={APPS}/legacy.yaml,line=2,title=client IP%3A incompatible-nodes::shop/Pod/billing: "
    )
    assert all(line.startswith("::") for line in said)


def test_nothing_in_a_manifest_begins_a_command_of_its_own(tmp_path: Path) -> None:
    """An annotation that holds line breaks and percent signs is one line of one command."""
    bad = "x\n::set-output name=a::b\r::error::%0A"
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "shop", "annotations": {"sidecar.istio.io/interceptionMode": bad}},
        "spec": {"nodeSelector": {"pool": "general"}, "containers": [{"name": "app"}]},
    }
    path = tmp_path / "a,b:c%.yaml"
    path.write_text(yaml.safe_dump(document))
    said = run("check", *STATE, "-o", "github", str(path)).stdout.splitlines()
    assert len(said) == 1
    assert "a%2Cb%3Ac%25.yaml,line=1," in said[0]
    assert said[0].count("::error") <= 2
    results = json.loads(run("check", *STATE, "-o", "sarif", str(path)).stdout)["runs"][0]["results"]
    assert [each["ruleId"] for each in results] == ["mode-already-set"]
