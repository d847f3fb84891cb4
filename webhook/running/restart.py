"""The commands that make a workload's pods anew: what a person copies and pastes."""

import shlex
from collections.abc import Iterable, Iterator
from typing import Final

from webhook.rules import wellknown
from webhook.rules.decision import Mode
from webhook.running.findings import Row
from webhook.running.verdicts import Advice

ROLLED: Final = ("Deployment", "StatefulSet", "DaemonSet")
"""What `kubectl rollout restart` takes; StatefulSets and DaemonSets replace their pods one after another."""


def restart_command(kind: str, namespace: str, name: str) -> str:
    """Return the command that has *kind* make its pods anew, or that has a gateway's Service decided; or nothing."""
    where = f"-n {shlex.quote(namespace)}"
    if kind in ROLLED:
        return f"kubectl rollout restart {shlex.quote(f'{kind.lower()}/{name}')} {where}"
    if kind == "Service":
        label = f"{wellknown.PRESERVE}=enabled"
        return f"kubectl label {shlex.quote(f'service/{name}')} {where} {label} --overwrite"
    if kind == "Rollout":
        return f"kubectl argo rollouts restart {shlex.quote(name)} {where}"
    return ""


def block(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines to copy and paste: Deployments first, what goes one pod after another apart, then the rest."""
    mended = [row for row in rows if row.advice is Advice.RESTART and row.mode is Mode.ENFORCE]
    rolled = [row for row in mended if row.restart]
    yield from (row.restart for row in rolled if row.kind not in {"StatefulSet", "DaemonSet", "Service"})
    for kind, said in (
        ("StatefulSet", "# StatefulSets: one pod after another"),
        ("DaemonSet", "# DaemonSets: node after node"),
        ("Service", "# Gateways: the label causes an update, in which the webhook makes the Service Local"),
    ):
        lines = [row.restart for row in rolled if row.kind == kind]
        if lines:
            yield said
            yield from lines
    for row in mended:
        if not row.restart:
            yield f"# {_comment(row)}: {row.fix}"


def _comment(row: Row) -> str:
    """A name in a comment must stay in it: from files it may be anything."""
    return " ".join(f"{row.namespace} {row.called}".split())
