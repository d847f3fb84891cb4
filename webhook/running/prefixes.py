"""
What tools put before a line of a container: kubectl, stern, k9s, runtimes, journals, syslog, shippers, and people.

A prefix is only looked for at the head of a line, and what follows it must be an entry all the same: one that is taken
away wrongly hides nothing. No pattern here can backtrack over more than one name.
"""

import re
from typing import Final

MAX_PREFIXES: Final = 8
"""What may stand one behind the other before an entry: kubectl's, a timestamp, a runtime's, a shipper's."""
MAX_TIME: Final = 80
"""Characters of a %START_TIME% in brackets."""
_COLOURS: Final = re.compile(r"\x1b\[[0-9;:?]{0,40}[@-~]|\x1b\][^\x07\x1b]{0,300}+(?:\x07|\x1b\\)")
"""Terminals' sequences: colours, and hyperlinks."""
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}"
_CLOCK: Final = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_TIME: Final = rf"\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}(?:Z|[+-]\d\d:?\d\d)?"
_SYSLOG_TIME: Final = rf"[A-Z][a-z]{{2}}[ ][ \d]\d[ ]{_CLOCK}"
_ENTRY: Final = r"(?=\[2|\{|\d{4}-\d\d-\d\dT)"
_PREFIX: Final = re.compile(
    rf"\[pod/(?P<pod>{_NAME})/(?P<container>{_NAME})\][ ]"  # kubectl logs --prefix
    rf"|\[{_NAME}(?:[ /]{_NAME}){{0,3}}\][ ]"  # kubetail
    rf"|\[[ ]{{0,10}}\d{{1,10}}\.\d{{3,9}}\][ ]"  # journalctl -o short-monotonic
    rf"|{_TIME}[ ](?P<stream>stdout|stderr)[ ](?P<tag>[FP])(?::{_NAME}){{0,3}}[ ]"  # CRI
    rf"|{_TIME}[ \t](?:[+-]\d{{4}}[ ])?"  # kubectl logs --timestamps; fluentd's has its zone apart
    rf"|\d\d-\d\d[ ]{_CLOCK}[ ]"  # stern --timestamps=short
    rf"|(?:<\d{{1,3}}>)?{_SYSLOG_TIME}[ ]"  # journalctl, syslog
    rf"|[A-Z][a-z]{{2}}[ ]{_TIME}[ ](?:[A-Z]{{2,5}}|[+-]\d\d)[ ]"  # journalctl -o short-full
    r"|\d{10}(?:\.\d{1,9})?[ \t]|(?:\d{13}|\d{16}|\d{19})[ \t]"  # journalctl -o short-unix, Grafana, Loki
    rf"|<\d{{1,3}}>1[ ]{_TIME}[ ](?:{_NAME}|-)[ ](?:{_NAME}|-)[ ](?:\d{{1,10}}|-)[ ](?:{_NAME}|-)[ ]"
    r"(?:-|\[[^\]]{1,500}+\])[ ]"  # syslog as RFC 5424 has it
    rf"|{_NAME}[ ]{_NAME}(?:/{_NAME})?(?:\[\d{{1,10}}\])?:[ ]"  # journalctl's and syslog's host and unit
    rf"|\{{{_NAME}=\"[^\"]{{0,500}}\"(?:, ?{_NAME}=\"[^\"]{{0,500}}\"){{0,40}}\}}[ \t]"  # logcli
    rf"|(?:{_NAME}[ ]{{1,60}}){{0,3}}{_NAME}[ ]{{0,60}}\|[ ]{{1,4}}"  # docker compose
    rf"|{_NAME}/{_NAME}\[{_NAME}\]:[ ]"  # kail
    rf"|(?:[A-Za-z0-9_./-]{{1,255}}:){{1,2}}[ ]?{_ENTRY}"  # grep -n, grep in several files, fluentd's tag
    rf"|{_NAME}:{_NAME}[ ]{_ENTRY}"  # POD:CONTAINER
    rf"|\d{{1,9}}\t|\d{{1,9}}[ ]{{1,8}}{_ENTRY}|[>|+][ \t]?{_ENTRY}"  # cat -n, nl; quoted, or of a diff
    rf"|(?P<stern>(?:{_NAME}[ ]{{1,4}}){{1,4}}?)(?=[\[{{]|\d{{4}}-\d\d-\d\dT|\d\d-\d\d[ ]\d\d:)"  # stern, k9s
    rf"|[A-Za-z0-9_./:@$-]{{1,512}}+[ ]{_ENTRY}",  # a log stream of CloudWatch's
)
KUBECTL: Final = re.compile(
    r"(?:\[pod/(?P<pod>[^/\] ]{1,253}+)/(?P<container>[^/\] ]{1,253}+)\] )?(?:\d[^ \t]{17,40}+ )?(?=\[2|\{)"
)
"""What kubectl puts before most lines, in one step; what is between must be an entry all the same."""
CONTINUED: Final = re.compile(rf"(?P<pod>{_NAME})[ ]{{1,4}}(?P<container>{_NAME})[ ]{{1,60}}(?=[\"}}\]])")
"""stern's prefix before a line in the middle of an entry."""
_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
"""How Kubernetes names pods and containers."""
_OWN_LINES: Final = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]{8,20}(?:Z|[+-]\d\d:\d\d)\t(?:trace|debug|info|warn(?:ing)?|error|critical|fatal|off)\t"
    r"(?!\[2|\{\")"  # pilot-agent's, and Envoy's through it
    r"|\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (?!\[2|\{\")"  # of Go's own logger
    r"|\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{1,9}\]\[\d{1,10}\]\[[a-z]{1,10}+\](?! (?:\[2|\{\"))"  # Envoy's
)
"""What the container says of itself; an entry behind one of these is none of its words."""


def is_own_line(text: str) -> bool:
    """Return whether the container says something of itself."""
    return _OWN_LINES.match(text) is not None


def uncoloured(text: str) -> str:
    """Return *text* without what only terminals read."""
    return _COLOURS.sub("", text) if "\x1b" in text else text


def unprefixed(text: str) -> tuple[str, str, str, str]:
    """Return pod, container, the CRI's stream and tag (`stdout P`), and what follows the prefixes."""
    pod = container = tag = ""
    for _ in range(MAX_PREFIXES):
        if text.startswith("["):
            if text.startswith('] "', text.find("]", 1, MAX_TIME)):
                break
        elif text[:1] in "\ufeff ":
            text = text.lstrip("\ufeff ")
        elif is_own_line(text):
            break
        found = _PREFIX.match(text)
        if found is None:
            break
        text = text[found.end() :]
        kind = found.lastgroup
        if kind == "container":
            pod, container = found.group("pod", "container")
        elif kind == "tag":
            tag = " ".join(found.group("stream", "tag"))
        elif kind == "stern":
            pod, container = _of_words(found["stern"].split(), container)
    return pod, container, tag, text


def _of_words(words: list[str], container: str) -> tuple[str, str]:
    """Return pod and container of stern's prefix: other words, such as a level's, are neither."""
    if len(words) == 1:
        return words[0], container
    if all(_OBJECT_NAME.fullmatch(word) for word in words):
        return words[-2], words[-1]
    return words[-2], container
