"""Key material as OpenSSL wants it, a file, without a disk that ever holds it: the root file system is read-only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def memory_file(content: bytes, name: str) -> Iterator[str]:
    """
    Yield a path that *content* can be read from while the block runs.

    Args:
        content: What the file holds.
        name: What the kernel calls it, in /proc.

    Raises:
        OSError: There is no memory or descriptor left.

    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
