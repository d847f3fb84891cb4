"""
Is a pod's inbound traffic captured by a proxy, and in which mode?

One function for every pod, as it stands or as it will be injected: `interception`. What stands in a pod is believed
before what it asks for: containers, their arguments and their environment. Where no proxy stands in it yet: its
annotation, else `proxy.istio.io/config`, else the mesh of its injector's revision, else REDIRECT.

A mode that only part of the pod speaks of is not taken for TPROXY: status annotation, istio-init or what istio-cni
reads, and the proxy's environment must agree. Whoever owns the pod can still write all of them by hand, so that this
is evidence, and no proof: `client-ip verify` is. Line numbers are of istio/istio 86c9f01fd735.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from webhook.rules import nulls, wellknown
from webhook.rules.limits import TooLarge
from webhook.rules.objects import Container, EnvVar, Pod
from webhook.rules.sidecar import DEFAULT_MODE, Choice, Injection, Mesh, own_choice, will_inject

TPROXY: Final = "TPROXY"
NONE: Final = "NONE"
INGRESS_IN_NONE: Final = (
    "in mode NONE, a Sidecar resource with ingress listeners still proxies: the application sees 127.0.0.1"
)
_ALONE: Final = frozenset({"router", "waypoint"})
"""Roles of an Envoy that no application stands behind (pilot-agent's first argument after `proxy`)."""
_LABELS: Final[Mapping[str, str]] = {}
UNREADABLE: Final = "\0"
"""Stands for what the API server does not take: as good as injected, so that nothing is patched."""


class Interception(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a proxy captures a pod's inbound traffic, and how."""

    captured: bool
    mode: str
    """REDIRECT, TPROXY, NONE, or what else was written; empty where there is no proxy to have one."""
    fact: str
    """What it rests on."""
    injected: bool = False
    """A proxy stands in the pod: its mode is fixed."""
    agreed: bool = True
    """All that the pod says of its mode is the same."""
    alone: bool = False
    """The proxy is a gateway's or a waypoint's."""
    chosen: Choice | None = None
    """Who asked for the mode, where a pod that is not injected yet does not get REDIRECT by default."""
    by_mesh: bool = False
    """It was the mesh, not the pod."""

    @property
    def preserved(self) -> bool:
        """Whether the application sees its callers, as far as the pod's own proxy goes."""
        return not self.captured or (self.mode == TPROXY and self.agreed)


USUAL: Final = Interception(captured=True, mode=DEFAULT_MODE, fact="no mode is set: the default is REDIRECT")
"""What nearly all pods get."""


def interception(pod: Pod, namespace_name: str, namespace: Mapping[str, str], mesh: Mesh) -> Interception:
    """
    Return how the pod's inbound traffic is intercepted: as it stands, else as it will be once it is injected.

    Raises:
        TooLarge: What its annotations ask for is beyond what is read.

    """
    standing = as_it_stands(pod, namespace_name, namespace, mesh)
    if standing is not None:
        return standing
    injection = will_inject(pod, namespace_name, namespace, mesh)
    if not injection.expected:
        return Interception(captured=False, mode="", fact=injection.cause, alone=injection.alone)
    return as_it_will_be(pod.metadata.annotations or _LABELS, injection)


def as_it_stands(pod: Pod, namespace_name: str, namespace: Mapping[str, str], mesh: Mesh) -> Interception | None:
    """
    Return what the proxy in the pod does; None where none was injected.

    An `istio-proxy` container that says no mode and stands without a status annotation is a user's customisation, which
    Istio merges where an injector is called for the pod.
    """
    annotations = pod.metadata.annotations or _LABELS
    status = wellknown.INJECTED_STATUS in annotations
    if not status and not is_customised(pod):
        return None
    proxies, init = _containers(pod)
    if not proxies:
        return _without_a_proxy(pod, namespace_name, namespace, mesh) if status else None
    variables = [variable for each in proxies for variable in _environment(each)]
    modes = [value for name, value in variables if name == wellknown.MODE_ENV]
    if not status and not modes and init is None:
        return _alone(proxies, pod, namespace, mesh)
    role = _role(proxies[-1])
    if role in _ALONE and (status or mesh.injector_of(namespace, pod.metadata.labels or _LABELS) is None):
        return _standing_alone(role)
    if not status:
        fact = _with_mode(f"container {wellknown.PROXY_CONTAINER} runs", modes)
        fact = f"{fact}, but there is no annotation {wellknown.INJECTED_STATUS}"
        return Interception(captured=True, mode=_last(modes), fact=fact, injected=True, agreed=False)
    if any(name == wellknown.DISABLE_ENVOY and _is_true(value) for name, value in variables):
        fact = f"container {wellknown.PROXY_CONTAINER} is a gRPC agent: there is no Envoy in front of the application"
        return Interception(captured=False, mode="", fact=fact, injected=True)
    return _injected(annotations, modes, init)


def as_it_runs(pod: Pod) -> Interception | None:
    """Return what the proxy of a running pod does, None where it has none: no injector is asked about it again."""
    return as_it_stands(pod, pod.metadata.namespace, _LABELS, _NO_MESH)


_NO_MESH: Final = Mesh()
_READ_VARIABLES: Final = frozenset({wellknown.MODE_ENV, wellknown.DISABLE_ENVOY})


class _SecurityContext(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    run_as_non_root: bool | None = None
    run_as_user: int | None = None


class _Overrides(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None


def root_forbidden(pod: Pod) -> str | None:
    """
    Return what in the user's own `istio-proxy` container forbids it to run as root, which TPROXY does.

    Istio merges the container over its template. It keeps runAsNonRoot, which has the kubelet refuse uid 0, and a uid
    wherever it does not set it back to 0: releases before 1.27, and what `proxy.istio.io/overrides` carries
    (pkg/kube/inject/webhook.go, reapplyOverwrittenContainers and adjustInitContainerUser).
    """
    for where, container in _customised(pod):
        try:
            context = msgspec.json.decode(container.security_context, type=_SecurityContext | None)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            continue  # nothing that the API server takes
        if context is not None and context.run_as_non_root:
            return f"{where} {wellknown.PROXY_CONTAINER} has runAsNonRoot: true"
        if context is not None and context.run_as_user:
            return f"{where} {wellknown.PROXY_CONTAINER} has runAsUser: {context.run_as_user}"
    return None


def _customised(pod: Pod) -> Iterator[tuple[str, Container]]:
    spec = pod.spec
    groups: list[tuple[str, list[Container] | None]] = [
        ("container", spec.containers),
        ("init container", spec.init_containers),
    ]
    text = (pod.metadata.annotations or _LABELS).get(wellknown.PROXY_OVERRIDES)
    if text is not None:
        try:
            overrides = msgspec.json.decode(text, type=_Overrides | None) or _Overrides()
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            overrides = _Overrides()  # Istio refuses the pod for it
        where = f"annotation {wellknown.PROXY_OVERRIDES}: container"
        groups += [(where, overrides.containers), (where, overrides.init_containers)]
    for where, containers in groups:
        for each in containers or ():
            if each.name == wellknown.PROXY_CONTAINER:
                yield where, each


def says_its_mode(container: Container) -> bool:
    """Return whether *container* is a proxy with an interception mode: one that a user only customises has none."""
    return container.name == wellknown.PROXY_CONTAINER and any(
        name == wellknown.MODE_ENV for name, _ in _environment(container)
    )


def is_customised(pod: Pod) -> bool:
    """Return whether something of Istio's stands in *pod*, its own or a user's: in nearly all pods nothing does."""
    annotations = pod.metadata.annotations
    if annotations and (wellknown.INJECTED_STATUS in annotations or wellknown.PROXY_OVERRIDES in annotations):
        return True
    for containers in (pod.spec.init_containers, pod.spec.containers):
        for each in containers or ():
            if each.name in wellknown.ISTIO_CONTAINERS:
                return True
    return False


def _containers(pod: Pod) -> tuple[list[Container], Container | None]:
    """Return the proxies, and the init container that writes or checks the rules; istio-init before the other."""
    proxies: list[Container] = []
    init = None
    for containers in (pod.spec.init_containers, pod.spec.containers):
        for each in containers or ():
            name = each.name
            if name == wellknown.PROXY_CONTAINER:
                proxies.append(each)
            elif (name == wellknown.INIT_CONTAINER and "-m" in _strings(each.args)) or (
                name == wellknown.VALIDATION_CONTAINER and init is None and "-m" in _strings(each.args)
            ):
                init = each
    return proxies, init


def _without_a_proxy(pod: Pod, namespace_name: str, namespace: Mapping[str, str], mesh: Mesh) -> Interception | None:
    """
    A status without a proxy: what the template grpc-simple leaves, or a copied annotation.

    Istio injects such a pod again if it is asked (inject.go:577-603), which rules of injection tell as for any other.
    """
    if not will_inject(pod, namespace_name, namespace, mesh).expected:
        return None
    fact = f"the pod has the annotation {wellknown.INJECTED_STATUS}, but no container {wellknown.PROXY_CONTAINER}"
    return Interception(captured=True, mode=DEFAULT_MODE, fact=fact, injected=True, agreed=False)


def _alone(proxies: Sequence[Container], pod: Pod, namespace: Mapping[str, str], mesh: Mesh) -> Interception | None:
    role = _role(proxies[-1])
    if role in _ALONE and mesh.injector_of(namespace, pod.metadata.labels or _LABELS) is None:
        return _standing_alone(role)
    return None


def _standing_alone(role: str) -> Interception:
    fact = f"container {wellknown.PROXY_CONTAINER} runs as `proxy {role}`: it captures no inbound traffic"
    return Interception(captured=False, mode="", fact=fact, injected=True, alone=True)


def _injected(annotations: Mapping[str, str], modes: Sequence[str], init: Container | None) -> Interception:
    """Return what a sidecar with a status annotation does: environment, init or CNI evidence, and annotations."""
    fact = _with_mode(f"container {wellknown.PROXY_CONTAINER} runs", modes)
    mode = _last(modes)
    if init is None:
        if modes and set(modes) == {NONE}:
            return Interception(captured=False, mode=NONE, fact=fact, injected=True)
        fact = f"{fact}, without {wellknown.INIT_CONTAINER} or {wellknown.VALIDATION_CONTAINER}"
        return Interception(captured=True, mode=mode, fact=fact, injected=True, agreed=False)
    arguments = _strings(init.args)
    by_cni = init.name == wellknown.VALIDATION_CONTAINER
    ports = [_argument(arguments, "-b")]
    told = [_argument(arguments, "-m") or ""]
    if by_cni:
        # istio-cni reads annotations, and takes what is absent for its own default (sidecar_redirect.go:211-222).
        ports.append(annotations.get(wellknown.INCLUDE_INBOUND_PORTS, "*"))
        told.append(annotations.get(wellknown.INTERCEPTION_MODE, DEFAULT_MODE))
    if all(each is not None and not each.strip() for each in ports):
        return Interception(captured=False, mode=mode, fact=f"{init.name} captures no inbound port", injected=True)
    try:
        own = own_choice(annotations)
    except TooLarge as error:
        return Interception(captured=True, mode=mode, fact=f"{fact}, but {error}", injected=True, agreed=False)
    if own is not None and own.mode and not own.weak:
        told.append(own.mode)
    differing = next((each for each in told if each != mode), None)
    if differing is not None or len(set(modes)) != 1:
        other = (
            f"{init.name} or an annotation says {differing}"
            if differing is not None
            else "the variable has other values too"
        )
        return Interception(captured=True, mode=mode, fact=f"{fact}, but {other}", injected=True, agreed=False)
    return Interception(captured=True, mode=mode, fact=fact, injected=True)


def as_it_will_be(annotations: Mapping[str, str], injection: Injection) -> Interception:
    """
    Return what the sidecar that *injection* expects will do for a pod with *annotations*.

    Raises:
        TooLarge: What they ask for is beyond what is read.

    """
    injector = injection.injector
    default = injector.default if injector is not None else None
    own = own_choice(annotations)
    ports = annotations.get(wellknown.INCLUDE_INBOUND_PORTS)
    if own is None and default is None and ports is None and (injector is None or injector.captures):
        return USUAL
    overruled = own is not None and own.weak and default is not None and default.mode not in {"", DEFAULT_MODE}
    chosen, by_mesh = own or default, default is not None and (own is None or overruled)
    if chosen is None:
        mode, fact = DEFAULT_MODE, USUAL.fact
    else:
        # An annotation that was left empty is a mode that Istio refuses, and no silence.
        stated = annotations.get(wellknown.INTERCEPTION_MODE)
        mode = stated if stated is not None else chosen.mode or (default.mode if default is not None else DEFAULT_MODE)
        fact = chosen.fact
        if overruled and default is not None:
            mode, fact = default.mode, f"{default.fact}, which REDIRECT in {wellknown.PROXY_CONFIG} does not override"
            chosen = Choice(mode=mode, fact=fact, environment=chosen.environment)
        if not chosen.environment and default is not None and default.environment:
            # The pod's ProxyConfig is merged into the mesh's, and proxyMetadata with it.
            chosen = Choice(mode=mode, fact=fact, environment=default.environment)
    agreed = chosen is None or chosen.environment in {"", mode}
    captured = True
    if mode == NONE:
        captured = not agreed  # nothing redirects, but what Envoy is told is another mode: not believed
    elif ports is not None and not ports.strip():
        captured, fact = False, f"annotation {wellknown.INCLUDE_INBOUND_PORTS} is empty"
    elif ports is None and injector is not None and not injector.captures:
        captured, fact = False, "the injector's values capture no inbound ports (global.proxy.includeInboundPorts)"
    return Interception(
        captured=captured,
        mode=mode,
        fact=fact,
        chosen=chosen,
        by_mesh=by_mesh,
        agreed=agreed,
    )


def _role(proxy: Container) -> str:
    """Return what pilot-agent's `proxy` command is told to be: sidecar where it is not said."""
    arguments = _strings(proxy.args)
    return arguments[1] if len(arguments) > 1 and arguments[0] == "proxy" else "sidecar"


def _argument(arguments: Sequence[str], name: str) -> str | None:
    for number, each in enumerate(arguments[:-1]):
        if each == name:
            return arguments[number + 1].strip() if name == "-m" else arguments[number + 1]
    return None


_variables: Final = nulls.decoder(list[EnvVar] | None)
_texts: Final = nulls.decoder(list[str] | None)


def _strings(raw: msgspec.Raw) -> list[str]:
    try:
        found: list[str] = _texts(raw) or []
        return found
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return []


def _environment(container: Container) -> list[tuple[str, str]]:
    """Return the variables that are read, as names and values: what is there twice counts as it was set last."""
    try:
        variables = _variables(container.env)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return [(wellknown.MODE_ENV, UNREADABLE)]
    return [(each.name, each.value or "") for each in variables or () if each.name in _READ_VARIABLES]


def _last(modes: Sequence[str]) -> str:
    return modes[-1] if modes and modes[-1] else DEFAULT_MODE


def _with_mode(fact: str, modes: Sequence[str]) -> str:
    if UNREADABLE in modes:
        return f"{fact}, with environment variables that cannot be read"
    return f"{fact} with {wellknown.MODE_ENV}={_last(modes)}" if modes else f"{fact} without {wellknown.MODE_ENV}"


def _is_true(value: str) -> bool:
    return value.strip().lower() in {"1", "t", "true"}
