"""The container's memory limit, as cgroups write it."""

from pathlib import Path

import pytest

from webhook.server.memory import limit_bytes

MIB = 1 << 20


def _write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"memory.max": f"{256 * MIB}\n"}, 256 * MIB),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {}, None),
        ("", {}, None),
        ("0::/pods/one\n", {"pods/one/memory.max": "max\n", "pods/memory.max": f"{64 * MIB}\n"}, 64 * MIB),
        ("0::/pods/one\n", {"pods/one/memory.max": f"{9 * MIB}\n", "pods/memory.max": f"{64 * MIB}\n"}, 9 * MIB),
        ("0::/../../outside\n", {"memory.max": f"{256 * MIB}\n"}, 256 * MIB),
        ("5:memory:/docker/abc\n", {"memory/memory.limit_in_bytes": f"{128 * MIB}\n"}, 128 * MIB),
        ("5:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": f"{128 * MIB}\n"}, 128 * MIB),
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("4:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "1\n"}, None),
    ],
    ids=[
        "version 2",
        "version 2 without a limit",
        "nothing mounted",
        "no membership",
        "the limit of the pod",
        "the least of both",
        "a membership outside of what is mounted",
        "version 1 in a container",
        "version 1 with shared controllers",
        "version 1 without a limit",
        "another controller's",
    ],
)
def test_the_least_limit_counts(tmp_path: Path, membership: str, files: dict[str, str], expected: int | None) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        _write((tmp_path / "cgroup" / name).parent, Path(name).name, text)
    found = limit_bytes(membership=tmp_path / "membership", cgroups=tmp_path / "cgroup")
    assert found == expected
