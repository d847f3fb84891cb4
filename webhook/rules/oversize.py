"""
What a large review holds too much of, counted before anything is made of it.

Three MiB of empty tolerations cost 80 ms as objects and 7 as the bytes that they are. An element takes a comma, so that
bytes that have few commas hold few elements, whatever they say. Only what a decision reads is counted and, where it is
too much, left out: everything else is skipped by the decoder at the speed of its bytes.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from webhook.rules.limits import ANNOTATION_ELEMENTS, CONTAINER_ELEMENTS, ELEMENTS, ELEMENTS_IN_ALL

_NULL: Final = msgspec.Raw(b"null")
UNCOUNTED: Final = 2 * ELEMENTS
"""Bytes that can't hold more elements than any limit: each takes a character and a comma."""


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    labels: msgspec.Raw = _NULL
    annotations: msgspec.Raw = _NULL


class _Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of a Pod, a Service or a workload."""

    tolerations: msgspec.Raw = _NULL
    node_selector: msgspec.Raw = _NULL
    affinity: msgspec.Raw = _NULL
    containers: msgspec.Raw = _NULL
    init_containers: msgspec.Raw = _NULL
    external_ips: msgspec.Raw = msgspec.field(default=_NULL, name="externalIPs")
    ports: msgspec.Raw = _NULL
    template: "_Part | None" = None
    job_template: "_Part | None" = None


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Metadata | None = None
    spec: _Spec | None = None


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    object: _Part | None = None


class _Review(msgspec.Struct, frozen=True, kw_only=True):
    request: _Request


_review: Final = msgspec.json.Decoder(_Review)
_part: Final = msgspec.json.Decoder(_Part)
_OWN: Final = {
    "metadata.annotations": ANNOTATION_ELEMENTS,
    "spec.containers": CONTAINER_ELEMENTS,
    "spec.initContainers": CONTAINER_ELEMENTS,
}
"""Limits of the fields that honest objects have more in; of all others ELEMENTS."""


def within(body: bytes) -> tuple[bytes, str]:
    """
    Return the review *body* as it can be decoded, and what was left out for its number of elements: mostly nothing.

    Raises:
        msgspec.MsgspecError: It is no review, which the decoder says as well.
        RecursionError: It is nested too deeply.

    """
    if len(body) <= UNCOUNTED or body.count(b",") <= ELEMENTS:
        return body, ""
    return _without_excess(body, _review.decode(body).request.object)


def object_within(text: bytes) -> tuple[bytes, str]:
    """
    Return the object *text* as `within` leaves it in a review, and what was left out of it.

    Raises:
        msgspec.MsgspecError: It is no object, which the decoder says as well.
        RecursionError: It is nested too deeply.

    """
    if len(text) <= UNCOUNTED or text.count(b",") <= ELEMENTS:
        return text, ""
    return _without_excess(text, _part.decode(text))


def _without_excess(body: bytes, part: _Part | None) -> tuple[bytes, str]:
    counted = [(bytes(raw), field) for field, raw in _fields(part, "")]
    numbered = sorted(((text.count(b",") + 1, field, text) for text, field in counted), reverse=True)
    in_all = sum(number for number, _, _ in numbered)
    excess = ""
    for number, field, text in numbered:
        limit = _OWN.get(field.rpartition("emplate.")[2], ELEMENTS)
        if number > limit or in_all > ELEMENTS_IN_ALL:
            in_all -= number
            body = body.replace(text, b"null")
            most = f"{limit:,}, and {ELEMENTS_IN_ALL:,} for all fields together"
            excess = excess or f"{field}: {number:,} elements; the limit is {most}"
    return body, excess


def _fields(part: _Part | None, above: str) -> Iterator[tuple[str, msgspec.Raw]]:
    while part is not None:
        if part.metadata is not None:
            yield f"{above}metadata.labels", part.metadata.labels
            yield f"{above}metadata.annotations", part.metadata.annotations
        spec = part.spec
        if spec is None:
            return
        yield f"{above}spec.tolerations", spec.tolerations
        yield f"{above}spec.nodeSelector", spec.node_selector
        yield f"{above}spec.affinity", spec.affinity
        yield f"{above}spec.containers", spec.containers
        yield f"{above}spec.initContainers", spec.init_containers
        yield f"{above}spec.externalIPs", spec.external_ips
        yield f"{above}spec.ports", spec.ports
        above += "spec.template." if spec.template is not None else "spec.jobTemplate."
        part = spec.template or spec.job_template
