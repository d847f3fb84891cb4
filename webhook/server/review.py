"""
AdmissionReview v1 bytes to a Request, and a Decision to the response's bytes.

One decode pass reads the fields that a decision needs and skips the rest. What is no AdmissionReview of this version
is `BadReview`; a well-formed review of something that is not ours is a Request that nothing handles. Nothing here can
say `allowed: false`.
"""

import base64
from functools import lru_cache
from typing import Any, Final, Literal, NoReturn

import msgspec

from webhook.rules import nulls
from webhook.rules.decision import Decision
from webhook.rules.limits import SHAPED_LIMIT, UID_LIMIT
from webhook.rules.objects import GROUPS, NO_METADATA, Reviewed, Service, Shaped
from webhook.rules.oversize import UNCOUNTED, within
from webhook.rules.patch import NOTHING, Patch
from webhook.rules.snapshot import Request
from webhook.rules.templates import shaped

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"


class BadReview(ValueError):  # noqa: N818  # an error's noun
    """A body that is no AdmissionReview that we read; the API server's failurePolicy decides."""


class _GroupVersionKind(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    group: str = ""
    version: str = ""
    kind: str = ""


class _OldSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    external_traffic_policy: str = ""


class _OldService(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    spec: _OldSpec = _OldSpec()


class _Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    uid: str
    kind: _GroupVersionKind = _GroupVersionKind()
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    operation: str = ""
    dry_run: bool | None = None
    object: Reviewed | None = None
    old_object: msgspec.Raw = msgspec.Raw(b"null")


class _Review(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: _Request


class _AnyRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    uid: str
    kind: _GroupVersionKind = _GroupVersionKind()
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    operation: str = ""
    dry_run: bool | None = None
    object: msgspec.Raw = msgspec.Raw(b"null")


class _AnyReview(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: str = ""
    kind: str = ""
    request: _AnyRequest


class _Tag(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    api_version: str = ""
    kind: str = ""


_review: Final = msgspec.json.Decoder(_Review)
_any_review: Final = msgspec.json.Decoder(_AnyReview)
_old_service: Final = nulls.decoder(_OldService | None)
_tag: Final = msgspec.json.Decoder(_Tag | None)
DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError)
"""msgspec raises the last outside its own hierarchy, where nesting goes beyond the interpreter's limit."""


def decode(message: bytes, start: int = 0) -> tuple[str, Request]:
    """
    Return the review's uid and what it asks about.

    Args:
        message: The review, or a request whose head is ASCII: to have its body alone it would have to be copied.
        start: Where in *message* the review begins.

    Raises:
        BadReview: With a message for the API server's log.

    """
    size = len(message) - start
    body: bytes | memoryview = memoryview(message)[start:] if start else message
    excess = ""
    try:
        if not message.isascii():
            message.decode()  # what no decision reads is skipped without a look at its text
        if size > UNCOUNTED:
            body, excess = within(message[start:])
        request = _review.decode(body).request
    except UnicodeDecodeError as error:
        raise BadReview("not UTF-8") from error
    except DECODE_ERRORS as error:
        if size > UNCOUNTED:
            return _decode_other(bytes(body), error)  # reading it once more, with nulls, would cost too much
        try:
            # The API server sends no nulls where we take none, but other callers may.
            request = nulls.tolerant(_Review)(message[start:]).request
        except DECODE_ERRORS:
            return _decode_other(message[start:], error)
    kind = request.kind
    if not 0 < len(request.uid) <= UID_LIMIT:
        _refuse_uid(request.uid)
    if kind.version != "v1" or GROUPS.get(kind.kind) != kind.group:
        try:
            return request.uid, _not_ours(kind, _any_review.decode(body).request)
        except DECODE_ERRORS as error:  # nulls, which were read once already
            raise BadReview(_plain(error)) from error
    if request.object is not None and request.object.metadata is NO_METADATA:
        # The API server always sends it, and a patch below it would fail.
        raise BadReview("request.object.metadata: required")
    return request.uid, Request(
        object=request.object,
        operation=request.operation,
        namespace=request.namespace,
        name=request.name,
        subresource=request.sub_resource,
        kind=kind.kind,
        dry_run=bool(request.dry_run),
        old_external_traffic_policy=_old_policy(request) if request.operation == "UPDATE" else "",
        size=size,
        excess=excess,
    )


def _refuse_uid(uid: str) -> NoReturn:
    raise BadReview(f"request.uid is longer than {UID_LIMIT} characters" if uid else "request.uid is empty")


def _old_policy(request: _Request) -> str:
    if not isinstance(request.object, Service):
        return ""
    try:
        old = _old_service(request.old_object)
    except DECODE_ERRORS as error:
        raise BadReview(f"request.oldObject: {_plain(error)}") from error
    return old.spec.external_traffic_policy if old is not None else ""


def _decode_other(body: bytes, error: Exception) -> tuple[str, Request]:
    """Tell a review of something else, which is allowed, from a bad body, which is refused with *error*."""
    try:
        review = _any_review.decode(body)
    except DECODE_ERRORS as worse:
        raise BadReview(_plain(worse)) from worse
    if (review.api_version, review.kind) != (API_VERSION, KIND):
        raise BadReview(
            f"expected {API_VERSION} {KIND}, got {review.api_version[:80]!r} {review.kind[:80]!r}",
        ) from error
    request = review.request
    if not 0 < len(request.uid) <= UID_LIMIT:
        _refuse_uid(request.uid)
    kind = request.kind
    try:
        tag = _tag.decode(request.object)
    except DECODE_ERRORS as worse:
        raise BadReview(f"request.object: {_plain(worse)}") from worse
    if kind.version == "v1" and GROUPS.get(kind.kind) == kind.group and (tag is None or tag.kind == kind.kind):
        raise BadReview(_plain(error)) from error
    return request.uid, _not_ours(kind, request)


def _not_ours(kind: _GroupVersionKind, request: _AnyRequest) -> Request:
    """Return what is let through, or warned of: of another kind the pod templates, as its shape has them."""
    return Request(
        object=_shaped(request.object),
        operation=request.operation,
        namespace=request.namespace,
        name=request.name,
        subresource=request.sub_resource,
        kind=kind.kind,
        dry_run=bool(request.dry_run),
    )


def _shaped(raw: msgspec.Raw) -> Shaped | None:
    text = bytes(raw)
    if text == b"null":
        return None
    if len(text) > SHAPED_LIMIT:
        return Shaped()
    try:
        document = msgspec.json.decode(text)
        return Shaped(pods=tuple(pod for _, pod in shaped(document)) if isinstance(document, dict) else ())
    except DECODE_ERRORS:
        return Shaped()  # its own API says what it is


def _plain(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


_encoder: Final = msgspec.json.Encoder()
_HEAD: Final = b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":'


def encode(uid: str, decision: Decision, *, marks: bool = False) -> bytes:
    """
    Return the response to the review *uid*: always allowed.

    Args:
        marks: Whether what is left alone on purpose is marked so.

    """
    return b"%b%b%b" % (_HEAD, _encoder.encode(uid), _rest(decision, marks))


@lru_cache(maxsize=256)
def _rest(decision: Decision, marks: bool) -> bytes:  # noqa: FBT001  # as a cache's key
    """Return the response behind its uid: reviews of a rollout share it (all that a decision says is bounded)."""
    parts = [b',"allowed":true']
    patch = decision.patch or (decision.mark if marks else NOTHING)
    if patch:
        parts += (b',"patchType":"JSONPatch","patch":"', encode_patch(patch), b'"')
    if decision.warnings:
        parts += (b',"warnings":', _encoder.encode(decision.warnings))
    annotations = {"reason": decision.reason.value, "mode": decision.mode.value, "outcome": decision.outcome.value}
    if decision.policy:
        annotations["policy"] = decision.policy
    annotations["cause"] = decision.cause
    parts += (b',"auditAnnotations":', _encoder.encode(annotations), b"}}")
    return b"".join(parts)


@lru_cache(maxsize=256)
def encode_patch(patch: Patch) -> bytes:
    """Return *patch* as JSON in base64, as the API wants it; there are a handful of different ones."""
    return base64.b64encode(_encoder.encode([operation.as_json() for operation in patch]))


def decode_response(body: bytes) -> dict[str, Any]:
    """Return the `response` of an AdmissionReview, its patch decoded: for clients such as the demo."""
    response: dict[str, Any] = msgspec.json.decode(body)["response"]
    if "patch" in response:
        response["patch"] = msgspec.json.decode(base64.b64decode(response["patch"]))
    return response
