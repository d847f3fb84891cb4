"""
Where the process begins: SIGTERM is heard from here on.

A container's first process gets no signal that it has no handler for: until then `kubectl delete pod` would be lost,
and the kubelet would wait for all of the grace period. Nothing else is imported before.
"""

import signal
import sys
from types import FrameType


def main() -> None:
    """Run `client-ip`."""
    signal.signal(signal.SIGTERM, _leave)
    from webhook.cli.main import main as run  # noqa: PLC0415  # only now: it takes a quarter of a second

    run()


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Nothing is served yet that would have to be drained; the server's own handler comes in place of this one."""
    sys.exit(0)
