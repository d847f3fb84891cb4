"""
The scheduler's own word on which nodes a pod may land on.

A Go program (`tests/parts/go/kube137/cmd/filters`) runs kube-scheduler's filter plugins in its framework; this keeps
one such process open and asks it. Tolerations may use Gt and Lt there, which is alpha in 1.37.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

from tests.parts.build import binaries


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What kube-scheduler says of one pod."""

    feasible: frozenset[str]
    """The nodes that pass NodeName, NodeUnschedulable, NodeAffinity and TaintToleration."""
    tolerated: frozenset[str]
    """The nodes that pass NodeUnschedulable and TaintToleration."""
    invalid: tuple[str, ...]
    """Why the API server would refuse what the pod says of nodes; empty where it would not."""


class Oracle:
    """
    A running oracle; a context manager.

    >>> with Oracle() as oracle:
    ...     [verdict] = oracle.ask([node], [pod])
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [str(binaries("filters-1.37")["filters"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        if self._log is not None:
            self._log.close()

    def ask(self, nodes: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """
        Return a verdict for each of *pods* in a cluster of *nodes*, whose names must differ.

        Raises:
            RuntimeError: It did not understand; the message has its log.

        """
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"nodes": nodes, "pods": pods}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            line = b""
        else:
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the oracle ended with {self._process.wait()}: {self._said()}")
        return [
            Verdict(
                feasible=frozenset(pod["feasible"]),
                tolerated=frozenset(pod["tolerated"]),
                invalid=tuple(pod["invalid"]),
            )
            for pod in json.loads(line)["pods"]
        ]

    def _said(self) -> str:
        assert self._log is not None
        self._log.seek(0)
        return self._log.read().decode(errors="replace")
