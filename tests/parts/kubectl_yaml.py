"""
How kubectl reads a stream of manifests.

A Go program (`tests/parts/go/kube137/cmd/yamls`) reads with what kubectl reads with; this keeps one such process open
and asks it.
"""

import base64
import json
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.parts.build import binaries


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What kubectl makes of a stream: the documents before the error, and the error."""

    documents: tuple[Any, ...]
    error: str


class KubectlYaml:
    """
    A running reader; a context manager.

    >>> with KubectlYaml() as kubectl:
    ...     kubectl.read(b"a: 08").documents
    ({'a': 8},)
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = str(binaries("yamls-1.37")["yamls"])
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.communicate()

    def read(self, stream: bytes) -> Stream:
        """
        Return what kubectl reads in *stream*.

        Raises:
            RuntimeError: The program has ended.

        """
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(base64.b64encode(stream).decode()).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended with {self._process.wait()}")
        answer = json.loads(line)
        return Stream(documents=tuple(answer["documents"]), error=answer["error"])
