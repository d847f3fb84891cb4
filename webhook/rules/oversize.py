"""
What a large review holds too much of, counted before anything is made of it.

Three MiB of empty tolerations cost 80 ms as objects and 7 as the bytes that they are. An element takes a comma, so that
bytes that have few commas hold few elements, whatever they say. Only what a decision reads is counted and, where it is
too much, left out: everything else is skipped at the speed of its bytes.

What has many commas is written anew, with what is read and was counted alone. So a field that is there twice, which the
API server never sends, is decoded once: otherwise all but the last of them would be decoded uncounted.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from webhook.rules.limits import ANNOTATION_ELEMENTS, CONTAINER_ELEMENTS, ELEMENTS, ELEMENTS_IN_ALL, SHAPED_LIMIT
from webhook.rules.objects import GROUPS

_NULL: Final = msgspec.Raw(b"null")
UNCOUNTED: Final = 2 * ELEMENTS
"""Bytes that can't hold more elements than any limit: each takes a character and a comma."""


class _Metadata(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    name: msgspec.Raw = _NULL
    generate_name: msgspec.Raw = _NULL
    namespace: msgspec.Raw = _NULL
    deletion_timestamp: msgspec.Raw = _NULL
    labels: msgspec.Raw = _NULL
    annotations: msgspec.Raw = _NULL


class _Spec(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Of a Pod, a Service or a workload."""

    node_name: msgspec.Raw = _NULL
    host_network: msgspec.Raw = _NULL
    runtime_class_name: msgspec.Raw = _NULL
    tolerations: msgspec.Raw = _NULL
    node_selector: msgspec.Raw = _NULL
    affinity: msgspec.Raw = _NULL
    containers: msgspec.Raw = _NULL
    init_containers: msgspec.Raw = _NULL
    type: msgspec.Raw = _NULL
    external_ips: msgspec.Raw = msgspec.field(default=_NULL, name="externalIPs")
    external_traffic_policy: msgspec.Raw = _NULL
    load_balancer_class: msgspec.Raw = _NULL
    allocate_load_balancer_node_ports: msgspec.Raw = _NULL
    health_check_node_port: msgspec.Raw = _NULL
    ports: msgspec.Raw = _NULL
    template: "_Part | None" = None
    job_template: "_Part | None" = None


class _Part(msgspec.Struct, kw_only=True, omit_defaults=True):
    kind: str = ""
    metadata: _Metadata | None = None
    spec: _Spec | None = None


class _Request(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    uid: msgspec.Raw = _NULL
    kind: msgspec.Raw = _NULL
    sub_resource: msgspec.Raw = _NULL
    name: msgspec.Raw = _NULL
    namespace: msgspec.Raw = _NULL
    operation: msgspec.Raw = _NULL
    dry_run: msgspec.Raw = _NULL
    old_object: msgspec.Raw = _NULL


class _Parsed(_Request, kw_only=True, rename="camel", omit_defaults=True):
    object: _Part | None = None


class _Unparsed(_Request, kw_only=True, rename="camel", omit_defaults=True):
    object: msgspec.Raw = _NULL


class _Review(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    api_version: msgspec.Raw = _NULL
    kind: msgspec.Raw = _NULL


class _ParsedReview(_Review, kw_only=True, rename="camel", omit_defaults=True):
    request: _Parsed


class _UnparsedReview(_Review, kw_only=True, rename="camel", omit_defaults=True):
    request: _Unparsed


_parsed: Final = msgspec.json.Decoder(_ParsedReview)
_unparsed: Final = msgspec.json.Decoder(_UnparsedReview)
_part: Final = msgspec.json.Decoder(_Part)
_encode: Final = msgspec.json.Encoder().encode
_COUNTED: Final = {
    "tolerations": ELEMENTS,
    "node_selector": ELEMENTS,
    "affinity": ELEMENTS,
    "containers": CONTAINER_ELEMENTS,
    "init_containers": CONTAINER_ELEMENTS,
    "external_ips": ELEMENTS,
    "ports": ELEMENTS,
    "labels": ELEMENTS,
    "annotations": ANNOTATION_ELEMENTS,
}
"""The lists and mappings that are read, each with its limit; honest objects have more of some than of others."""
_Holder: TypeAlias = _Metadata | _Spec


def within(body: bytes) -> tuple[bytes, str]:
    """
    Return the review *body* as it can be decoded, and what was left out for its number of elements: mostly nothing.

    Raises:
        msgspec.MsgspecError: It is no review, which the decoder says as well.
        RecursionError: It is nested too deeply.

    """
    if len(body) <= UNCOUNTED or body.count(b",") <= ELEMENTS:
        return body, ""
    review = _parsed.decode(body)
    part = review.request.object
    if part is not None and part.kind in GROUPS:
        excess = _leave_out(part)
        return _encode(review), excess
    # Of any other kind its shape is read, where it is small enough (`templates`).
    other = _unparsed.decode(body)
    if len(memoryview(other.request.object)) > SHAPED_LIMIT:
        other.request.object = msgspec.Raw(_encode(_Part(kind=part.kind if part is not None else "")))
    return _encode(other), ""


def object_within(text: bytes) -> tuple[bytes, str]:
    """
    Return the object *text*, of a kind that is decided, as `within` leaves it in a review, and what was left out of it.

    Raises:
        msgspec.MsgspecError: It is no object, which the decoder says as well.
        RecursionError: It is nested too deeply.

    """
    if len(text) <= UNCOUNTED or text.count(b",") <= ELEMENTS:
        return text, ""
    part = _part.decode(text)
    excess = _leave_out(part)
    return _encode(part), excess


def excess_of(text: bytes) -> str:
    """
    Return what `object_within` would leave out of the object *text*, which is read for more than a decision.

    Raises:
        msgspec.MsgspecError: It is no object, which the decoder says as well.
        RecursionError: It is nested too deeply.

    """
    if len(text) <= UNCOUNTED or text.count(b",") <= ELEMENTS:
        return ""
    return _leave_out(_part.decode(text))


def _leave_out(part: _Part) -> str:
    """Take out of *part* what is too much, the largest first, and return what is said of it."""
    found = [(bytes(getattr(holder, name)).count(b",") + 1, path, holder, name) for holder, name, path in _lists(part)]
    found.sort(key=lambda each: each[:2], reverse=True)
    in_all = sum(number for number, _, _, _ in found)
    excess = ""
    for number, path, holder, name in found:
        limit = _COUNTED[name]
        if number > limit or in_all > ELEMENTS_IN_ALL:
            in_all -= number
            setattr(holder, name, _NULL)
            most = f"{limit:,}, and {ELEMENTS_IN_ALL:,} for all fields together"
            excess = excess or f"{path}: {number:,} elements; the limit is {most}"
    return excess


def _lists(part: _Part | None) -> Iterator[tuple[_Holder, str, str]]:
    """Yield where each list and mapping is held, and its path."""
    above = ""
    while part is not None:
        holders: tuple[tuple[_Holder | None, str], ...] = ((part.metadata, "metadata"), (part.spec, "spec"))
        for holder, where in holders:
            if holder is not None:
                for name, path in _PATHS[type(holder)]:
                    yield holder, name, f"{above}{where}.{path}"
        spec = part.spec
        if spec is None:
            return
        above += "spec.template." if spec.template is not None else "spec.jobTemplate."
        part = spec.template or spec.job_template


_PATHS: Final = {
    kind: [(each.name, each.encode_name) for each in msgspec.structs.fields(kind) if each.name in _COUNTED]
    for kind in (_Metadata, _Spec)
}
