"""
How much of an object is read, quoted and kept: the budget of a review, each limit in one place.

docs/security.md states the budget and lists these limits; a test holds that list to this module. What is beyond one is
not decided: Reason `too-large`, which names the field and the limit. Where no object of a working cluster comes near a
limit, it says so; a limit that one may reach says what it costs there.
"""

from typing import Final


class TooLarge(ValueError):  # noqa: N818  # an error's noun
    """Something of an object is beyond a limit, which is seen only as it is read."""


# --- What is read of an object.
TEXT_LIMIT: Final = 16_384
"""
Characters of one text that a decision reads: an annotation's value, `spec.nodeName`, a Service's type.

Istio's longest annotation, `proxy.istio.io/config`, has some hundred.
"""
CONFIG_NODES: Final = 2_000
"""
Values (scalars, lists, mappings) of the YAML in `proxy.istio.io/config`, and how many aliases and merges repeat.

Istio's own `defaultConfig` has a dozen. Reading so many takes up to 15 ms.
"""
LABELS_LIMIT: Final = 65_536
"""Characters of all labels together, and of a nodeSelector; a label has 317 + 63 at most, and few pods have twenty."""
TOLERATIONS_LIMIT: Final = 4_000
"""Tolerations of a pod: each is held against the taints of the cluster."""
TERMS_LIMIT: Final = 4_000
"""Alternatives of the required node affinity, and requirements in all of them together."""
VALUES_LIMIT: Final = 10_000
"""Values in all requirements of the node affinity together: a pod may be pinned to thousands of hostnames."""
CONTAINERS_LIMIT: Final = 4_000
"""Containers of a pod, init containers among them."""
PROXY_ENV_LIMIT: Final = 262_144
"""Bytes of JSON in env, args and securityContext of all of Istio's containers; the environment has 4 KiB in Istio."""
SHARES: Final = 150
"""
What parts of the limits above an object may use together, in hundredths: one whole limit and half of another.

Of what costs most: `proxy.istio.io/config` and `overrides`, tolerations, terms, values, containers and environments.
An object that is just within each of them would cost as much as the worst of each kind together; so would the pod
templates of one object, each of which is within all of them.
"""
ANNOTATIONS_TOTAL: Final = 262_144 - 4_096
"""
Bytes of all annotations (keys and values), from which on none is added.

The API server takes 256 KiB (k8s.io/apimachinery/pkg/api/validation/objectmeta.go, TotalAnnotationSizeLimitB). What is
left is for ours, and for what mutating webhooks after us add.
"""
SHAPED_LIMIT: Final = 262_144
"""
Bytes of an object of a kind that is not ours, in which pod templates are looked for by their shape (`templates`).

Only kinds that the configuration was told of (`webhook.workloads`) are sent. The largest Rollouts have some 20 KiB;
reading this much takes up to 30 ms. The custom resource of a larger one is let through unseen.
"""
ELEMENTS: Final = 50_000
"""Elements (commas in JSON, plus one) of labels, tolerations, a nodeSelector, an affinity, externalIPs or ports."""
CONTAINER_ELEMENTS: Final = 150_000
"""The same of all containers, or all init containers: with 10 bytes for each they fill what etcd takes."""
ANNOTATION_ELEMENTS: Final = 100_000
"""The same of annotations; commas in their texts count, and all of them have 256 KiB."""
ELEMENTS_IN_ALL: Final = 200_000
"""The same of all of these together: what is decoded at the most."""
SMALL: Final = 12_000
"""
Bytes of JSON that can't hold more of anything than its limit: 4,000 empty tolerations take 12,001.

So that the usual review costs one comparison, whatever limits there are.
"""
CONFIG_LIMIT: Final = 524_288
"""
Characters of one text of the mesh's ConfigMaps: `config` and `values` of an injector, `mesh` of Istio.

Istio 1.31's injector has 112,000 in `config`. A longer one is passed over, as one that is no YAML: what was known of it
stays in use. YAML of this length takes a second at most, in a thread beside the reviews.
"""

# --- What is read of a node and of a namespace.
NODE_LABELS: Final = 1_000
"""Labels of a node; a few hundred where features are discovered. A node with more does not count as supported."""
NODE_TAINTS: Final = 64
"""The same of its taints: each review is held against all that there are in the cluster."""
NODE_TEXT: Final = 1_024
"""Characters of what a kubelet reports of its machine; what is longer is cut."""
NAMESPACE_LABELS: Final = 16_384
"""Characters of a namespace's labels, all of which are kept. One with more counts as unknown."""

# --- What is quoted of it.
UID_LIMIT: Final = 256
"""Characters of a review's uid, which is sent back; the API server's are UUIDs."""
CAUSE_LIMIT: Final = 500
"""Characters of a cause: a report's cell, and the audit annotation that each API server's log keeps."""
WARNING_LIMIT: Final = 200
"""Characters of a warning. The API server cuts at 256 where there are many; a terminal's line is shorter still."""
WARNINGS: Final = 4
"""Warnings of a review: the loss itself, and what else is to be said."""
OWNER_LIMIT: Final = 80
"""Characters of an opt-out's owner: an address, or the name of a team."""
END_LIMIT: Final = 40
"""Characters that a time takes at most; what is longer is none, and is quoted cut."""
NAMED: Final = 3
"""Names that are given of many (nodes, templates)."""

# --- What is kept of it.
CACHED_CHARACTERS: Final = 256
"""
Of a requirement that is kept as checked; a longer one is checked anew each time.

So no cache keeps what somebody wrote at length: there are 1,024 of these, and 256 ends of answers with their causes.
"""
KEPT_DECISIONS: Final = 256
"""Decisions that a snapshot keeps by what they were made on; all that one says is bounded."""
KEPT_PODS_BYTES: Final = 4_096
"""Of JSON that says what a decision reads of a pod (metadata, placement); of a longer one no decision is kept."""
KEPT_PODS_OF_BYTES: Final = 65_536
"""Bytes of a review beyond which that JSON is not even made."""
