"""A log and its pod, from bytes to verdicts: the same for files and for what a cluster holds."""

from collections.abc import Iterable
from typing import Any

from webhook.cli.verified import Judged, PodMode, Tally
from webhook.facts.collect import decode
from webhook.rules import wellknown
from webhook.rules.interception import as_it_runs
from webhook.rules.limits import TooLarge
from webhook.rules.objects import Pod
from webhook.rules.sidecar import own_choice
from webhook.running.accesslog import NO_OWN, IPAddress, ip_address, judge
from webhook.running.logshapes import Lines, Read, Reader


class Log:
    """One log on its way from bytes to verdicts."""

    def __init__(self, tally: Tally, file: str, *, pod: str = "", own: frozenset[IPAddress] = NO_OWN) -> None:
        """
        Begin a log.

        Args:
            tally: Who counts and prints.
            file: How the log is called.
            pod: `NAMESPACE/NAME`, where it is known.
            own: That pod's addresses.

        """
        self._tally, self._file, self._pod, self._own = tally, file, pod, own
        self._lines, self._reader = Lines(), Reader()

    def feed(self, chunk: bytes) -> None:
        """Judge what *chunk* ends."""
        self._judge(self._reader.read(self._lines.feed(chunk)))

    def end(self) -> None:
        """Judge what is left."""
        self._judge(self._reader.read(self._lines.end()))
        self._judge(self._reader.end())
        self._tally.lines += self._reader.lines
        self._tally.entries += self._reader.entries

    def _judge(self, found: Iterable[Read]) -> None:
        for each in found:
            finding = None
            if each.entry is not None:
                finding = judge(each.entry, self._own)
                if finding is None:
                    continue
            self._tally.add(Judged(file=self._file, pod=self._pod or each.pod, read=each, finding=finding))


def injected(document: dict[str, Any]) -> PodMode:
    """
    Return the mode that a pod was injected with.

    Raises:
        FactError: It is no Pod of Kubernetes'.

    """
    pod: Pod = decode({**document, "kind": "Pod"}, Pod)
    name = "/".join(part for part in (pod.metadata.namespace, pod.metadata.name) if part)
    told = as_it_runs(pod)
    if told is None:
        return PodMode(pod=name, mode=None, fact=f"no {wellknown.PROXY_CONTAINER} was injected")
    asked, contradiction = None, None
    try:
        asked = own_choice(pod.metadata.annotations or {})
    except TooLarge as error:
        contradiction = f"the requested mode is not known: {error}"
    if asked is not None and told.mode and asked.mode not in {"", told.mode}:
        contradiction = f"{asked.fact} was added after injection, and does not match the proxy"
    elif not told.agreed:
        contradiction = f"{told.fact}: its settings for the mode do not agree"
    return PodMode(pod=name, mode=told.mode or None, fact=told.fact, contradiction=contradiction)


def own_addresses(document: dict[str, Any]) -> frozenset[IPAddress]:
    """Return the addresses in a pod's status."""
    status = document.get("status") or {}
    told = [each.get("ip") for each in status.get("podIPs") or () if isinstance(each, dict)]
    found = [ip_address(each) for each in (status.get("podIP"), *told) if isinstance(each, str)]
    return frozenset(each for each in found if each is not None)
