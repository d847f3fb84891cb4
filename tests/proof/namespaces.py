"""
Network namespaces, the only place where the lab adds addresses, routes, rules and processes.

All carry one prefix. What a killed run left is found by it: the names under /run/netns, and the processes inside them.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

PREFIX: Final = "cip-"
_NAMES: Final = Path("/run/netns")
_FILES: Final = Path("/etc/netns")
"""`ip netns exec NAME` mounts what is in /etc/netns/NAME over /etc."""


class CommandError(RuntimeError):
    """A command that failed; the message has what it said."""


class Namespace:
    """One network namespace of the lab."""

    def __init__(self, name: str) -> None:
        assert name.startswith(PREFIX), name
        self.name = name

    def create(self, hosts: dict[str, str] | None = None) -> None:
        """
        Make it, with its loopback up.

        Args:
            hosts: The addresses of names, for its /etc/hosts. It has no DNS: a look-up fails at once.

        """
        files = _FILES / self.name
        files.mkdir(parents=True, exist_ok=True)
        lines = ["127.0.0.1 localhost", "::1 localhost", *(f"{ip} {name}" for name, ip in (hosts or {}).items())]
        (files / "hosts").write_text("\n".join(lines) + "\n")
        (files / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def run(self, *argv: str | Path, text: str | None = None) -> str:
        """Run a command inside and return what it printed."""
        return run("ip", "netns", "exec", self.name, *argv, text=text)

    def ip(self, *arguments: str) -> str:
        """Run `ip` inside."""
        return run("ip", "-n", self.name, *arguments)

    def sysctl(self, **values: str) -> None:
        """Set kernel parameters of this namespace; two underscores stand for a dot."""
        for name, value in values.items():
            self.run("sysctl", "-qw", f"{name.replace('__', '.')}={value}")

    def forward(self) -> None:
        """Route packets as a node does, for IPv4 and IPv6."""
        self.sysctl(
            net__ipv4__ip_forward="1",
            net__ipv4__conf__all__send_redirects="0",
            net__ipv4__conf__default__send_redirects="0",
            net__ipv6__conf__all__forwarding="1",
        )

    def delete(self) -> None:
        """End what runs inside and remove it, with its interfaces and files."""
        if (_NAMES / self.name).exists():
            _end(self._pids())
            with contextlib.suppress(CommandError):
                # The other end of a veth would stay until the kernel gets to free the namespace.
                for link in re.findall(r"^\d+: ([^@:]+)@", self.ip("-o", "link"), re.MULTILINE):
                    self.ip("link", "delete", link)
            run("ip", "netns", "delete", self.name)
        shutil.rmtree(_FILES / self.name, ignore_errors=True)

    def _pids(self) -> list[int]:
        return [int(pid) for pid in run("ip", "netns", "pids", self.name).split()]


def connect(one: Namespace, its_link: str, other: Namespace, other_link: str) -> None:
    """Lay a virtual cable between two namespaces; neither end is ever in the machine's own."""
    ends = ("netns", one.name, "type", "veth", "peer", "name", other_link, "netns", other.name)
    run("ip", "link", "add", its_link, *ends)
    one.ip("link", "set", its_link, "up")
    other.ip("link", "set", other_link, "up")


def leftovers() -> list[Namespace]:
    """Return the lab's namespaces that are there now."""
    found = {path.name for folder in (_NAMES, _FILES) if folder.is_dir() for path in folder.iterdir()}
    return [Namespace(name) for name in sorted(found) if name.startswith(PREFIX)]


def clean() -> None:
    """Remove every namespace of the lab, with what runs in it."""
    for namespace in leftovers():
        namespace.delete()


def host_state() -> dict[str, list[str]]:
    """Return the machine's own rules, routes and interfaces, without counters."""
    commands = {
        "iptables": ("iptables-save",),
        "ip6tables": ("ip6tables-save",),
        "nftables": ("nft", "--stateless", "list", "ruleset"),
        "rules": ("ip", "rule"),
        "rules of IPv6": ("ip", "-6", "rule"),
        "routes": ("ip", "route", "show", "table", "all"),
        "routes of IPv6": ("ip", "-6", "route", "show", "table", "all"),
        "links": ("ip", "-o", "link"),
        "addresses": ("ip", "-o", "address"),
    }
    return {what: _stable(run(*command)) for what, command in commands.items()}


def _stable(text: str) -> list[str]:
    """Drop what changes by itself: comments with dates, packet counters, lifetimes."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    changing = r"\[\d+:\d+\]|(expires|valid_lft|preferred_lft) \w+|\b(mtu|hoplimit) \d+"
    return [re.sub(changing, "", line) for line in lines]


def _end(pids: list[int]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + 1
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
            time.sleep(0.02)


def run(*argv: str | Path, text: str | None = None) -> str:
    """
    Run a command and return what it printed.

    Raises:
        CommandError: It failed.

    """
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"{' '.join(map(str, argv))}: {(done.stderr or done.stdout).strip() or done.returncode}")
    return done.stdout
