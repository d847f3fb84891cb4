"""
Where the process begins: SIGTERM is heard from here on.

A container's first process gets no signal that it has no handler for: until then `kubectl delete pod` would be lost,
and the kubelet would wait for all of the grace period. Nothing else is imported before.
"""

import os
import signal
from types import FrameType


def main() -> None:
    """Run `client-ip`."""
    signal.signal(signal.SIGTERM, _leave)
    from webhook.cli.main import main as run  # noqa: PLC0415  # only now: it takes a quarter of a second

    run()


def _leave(_number: int, _frame: FrameType | None) -> None:
    """
    Nothing is served yet that would have to be drained; the server's own handler comes in place of this one.

    At once: an exception in the midst of an import can come out as another one, and the exit status as 1.
    """
    os._exit(0)
