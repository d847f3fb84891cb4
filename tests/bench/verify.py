"""
What `client-ip verify` costs: CPU seconds and peak memory over logs of several shapes and lengths.

    python -m tests.bench.verify [LINES]

Memory must not grow with the log, and CPU no faster than it: the table shows a tenth of the log beside the whole.
"""

import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

LINES: Final = 200_000
JSON: Final = (
    '{{"authority":"reviews:8080","bytes_received":0,"bytes_sent":128,"connection_termination_details":null,'
    '"downstream_local_address":"10.1.0.5:8080","downstream_remote_address":"{caller}:{port}","duration":2,'
    '"method":"GET","path":"/items/{number}","protocol":"HTTP/1.1","request_id":"977ad996-086c-49ae-93fb-8535af80f98f",'
    '"requested_server_name":null,"response_code":200,"response_code_details":"via_upstream","response_flags":"-",'
    '"route_name":"default","start_time":"2026-11-23T14:42:37.525Z","upstream_cluster":"inbound|8080||",'
    '"upstream_host":"10.1.0.5:8080","upstream_local_address":"{peer}:{port}","upstream_service_time":"1",'
    '"upstream_transport_failure_reason":null,"user_agent":"curl/7.88.1","x_forwarded_for":null}}\n'
)
TEXT: Final = (
    '[2026-11-23T14:42:37.525Z] "GET /items/{number} HTTP/1.1" 200 - via_upstream - "-" 0 128 2 1 "-" "curl/7.88.1" '
    '"977ad996-086c-49ae-93fb-8535af80f98f" "reviews:8080" "10.1.0.5:8080" inbound|8080|| {peer}:{port} 10.1.0.5:8080 '
    "{caller}:{port} - default\n"
)
PREFIX: Final = "[pod/reviews-7d4b9-x2x4z/istio-proxy] 2026-11-23T14:42:37.525123456Z "


def lines(template: str, *, preserved: bool) -> Iterator[str]:
    """Yield entries of a mesh with 60,000 callers."""
    for number in itertools.count():
        caller = f"10.{2 + number // 62_500 % 200}.{number // 250 % 250}.{number % 250}"
        peer = caller if preserved else "127.0.0.6"
        yield template.format(caller=caller, peer=peer, port=20_000 + number % 40_000, number=number)


SHAPES: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "text, preserved": lambda: lines(TEXT, preserved=True),
    "text, lost": lambda: lines(TEXT, preserved=False),
    "JSON, preserved": lambda: lines(JSON, preserved=True),
    "JSON, lost": lambda: lines(JSON, preserved=False),
    "text behind kubectl's prefix and time": lambda: (PREFIX + line for line in lines(TEXT, preserved=True)),
    "not understood": lambda: (line.replace(" default\n", "\n") for line in lines(TEXT, preserved=True)),
}


def measure(log: Path, output: str) -> tuple[float, int]:
    """Return the CPU seconds and the peak memory in KiB of the command over *log*."""
    command = [sys.executable, "-m", "webhook.cli", "verify", "-o", output, str(log)]
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=nowhere)
    _, _, usage = os.wait4(child, 0)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def main(count: int) -> None:
    """Print the table."""
    print(f"{'shape':<40} {'output':<6} {'lines':>9} {'CPU s':>7} {'MiB':>5}")
    with tempfile.TemporaryDirectory() as folder:
        for shape, made in SHAPES.items():
            for output, length in itertools.product(("table", "json"), (count // 10, count)):
                log = Path(folder) / "log"
                with log.open("w") as file:
                    file.writelines(itertools.islice(made(), length))
                seconds, memory = measure(log, output)
                print(f"{shape:<40} {output:<6} {length:>9,} {seconds:>7.2f} {memory / 1024:>5.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else LINES)
