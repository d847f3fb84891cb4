"""Texts that a tenant may write, put where a tenant may write them."""

from collections.abc import Mapping
from typing import Final

import msgspec

from tests.browser.scans import NOW, row, scan, waiver
from webhook.running.findings import ExceptionState, ExceptionUse, Gateway, Manager, Named, Scan, Scope

ATTACKS: Final = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "'><svg onload='window.hacked=1'>",
    "</pre></td></tr></table></style></title></script><script>window.hacked=1</script>",
    "<iframe srcdoc=\"<script>parent.hacked=1</script>\"></iframe><base href='https://example.com/'>",
    "javascript:window.hacked=1 <a href=javascript:window.hacked=1>hacked</a>",
    "&lt;script&gt;hacked&lt;/script&gt; {{constructor.constructor('hacked')()}} ${hacked}",
    "<!-- --><style>body{display:none}</style><meta http-equiv=refresh content='0;url=https://example.com/'>",
    "\u202ehacked\u202c\x00\x1b[2J\x07\u2028\u2029",
)
_TEXT: Final = " ".join(ATTACKS)


def attacked() -> Mapping[str, Scan]:
    """Return scans by the place of the text in them."""
    found = {}
    for place in ("namespace", "name", "kind", "owner", "policy"):
        found[place] = scan(4, more=(msgspec.structs.replace(row(1), **{place: _TEXT}),))
    mended = row(0)
    named = Named(count=1, names=[_TEXT])
    waived = msgspec.structs.replace(waiver(3), name=_TEXT, owner=_TEXT, reason=_TEXT, ticket=_TEXT, policy=_TEXT)
    changed = {
        "restart": msgspec.structs.replace(mended, restart=f"kubectl {_TEXT}"),
        "disagreeing": msgspec.structs.replace(mended, disagreeing=named),
        "stranded": msgspec.structs.replace(mended, stranded=named),
        "exception": msgspec.structs.replace(row(5), exception=waived),
        "ended": msgspec.structs.replace(row(1), ended=waived),
        "cause": msgspec.structs.replace(row(1), after=msgspec.structs.replace(row(1).after, cause=_TEXT)),
        "gateway": msgspec.structs.replace(
            mended, gateway=Gateway(warnings=[_TEXT], managers=[Manager(name=_TEXT, operation=_TEXT)])
        ),
    }
    for place, bad in changed.items():
        found[place] = scan(4, more=(bad,))
    base = scan(4)
    scope = Scope(source=_TEXT, cluster=_TEXT, user=_TEXT, context=_TEXT, namespaces=[_TEXT], unreadable={_TEXT: _TEXT})
    use = ExceptionUse(state=ExceptionState.ENDED, exception=waived, covers=1)
    found["scope"] = msgspec.structs.replace(base, scope=scope)
    found["exceptions"] = msgspec.structs.replace(base, exceptions=[use], compared=_TEXT, version=_TEXT)
    found["resolved"] = msgspec.structs.replace(base, resolved=[msgspec.structs.replace(row(1), name=_TEXT)], time=NOW)
    return found
