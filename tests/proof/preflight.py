"""What the lab needs of a machine, asked before anything starts: whatever is missing is named, nothing is skipped."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.proof.namespaces import PREFIX, CommandError, Namespace, run

COMMANDS: Final = {
    "ip": "iproute2",
    "ss": "iproute2",
    "sysctl": "procps",
    "setpriv": "util-linux",
    "iptables": "iptables",
    "ip6tables": "iptables",
    "iptables-save": "iptables",
    "nft": "nftables",
}
"""Debian's package by command; `packages.txt` lists the packages."""

_MANGLE: Final = ("-t", "mangle", "-A", "PREROUTING", "-p", "tcp")
FEATURES: Final = {
    "TPROXY target": ("iptables", *_MANGLE, "-j", "TPROXY", "--on-port", "15006", "--tproxy-mark", "0x539"),
    "TPROXY target for IPv6": ("ip6tables", *_MANGLE, "-j", "TPROXY", "--on-port", "15006", "--tproxy-mark", "0x539"),
    "REDIRECT target": ("iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", "REDIRECT", "--to-ports", "15001"),
    "owner match": ("iptables", "-t", "nat", "-A", "OUTPUT", "-m", "owner", "--uid-owner", "1337", "-j", "RETURN"),
    "mark match": ("iptables", *_MANGLE, "-m", "mark", "--mark", "0x539", "-j", "RETURN"),
    "connmark target": ("iptables", *_MANGLE, "-j", "CONNMARK", "--restore-mark"),
    "conntrack match": ("iptables", *_MANGLE, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"),
    "routing by mark": ("ip", "rule", "add", "fwmark", "0x539", "lookup", "133"),
    "routing by mark for IPv6": ("ip", "-6", "rule", "add", "fwmark", "0x539", "lookup", "133"),
    "local routes": ("ip", "route", "add", "local", "default", "dev", "lo", "table", "133"),
    "virtual cables (veth)": ("ip", "link", "add", "one", "type", "veth", "peer", "name", "two"),
    "bridges": ("ip", "link", "add", "bridge", "type", "bridge"),
    "forwarding of IPv4": ("sysctl", "-qw", "net.ipv4.ip_forward=1"),
    "forwarding of IPv6": ("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"),
    "IPv6 addresses": ("ip", "-6", "addr", "add", "fd00::1/128", "dev", "lo"),
    "nftables verdict maps": ("nft", "add table ip cip; add map ip cip m { type inet_service : verdict ; }"),
    "nftables of IPv6": ("nft", "add table ip6 cip"),
    "nftables random numbers": ("nft", "add table ip n; add chain ip n c; add rule ip n c numgen random mod 2 0 drop"),
    "nftables address types": ("nft", "add table ip f; add chain ip f c; add rule ip f c fib daddr type local drop"),
    "nftables masquerading": (
        "nft",
        "add table ip t; add chain ip t p { type nat hook postrouting priority 100; }; add rule ip t p masquerade",
    ),
}
"""A command that needs each kernel feature, to be tried in a namespace of its own."""


def missing() -> list[str]:
    """Return what this machine lacks, a sentence each."""
    if sys.platform != "linux":
        return ["this is not Linux"]
    if os.geteuid() != 0:
        return ["root: network namespaces and iptables need it (sudo make proof)"]
    absent = {command: package for command, package in COMMANDS.items() if shutil.which(command) is None}
    if absent:
        packages = " ".join(sorted(set(absent.values())))
        return [f"the command {command}" for command in absent] + [f"install them: apt-get install {packages}"]
    return _missing_features() + _missing_for_other_users()


def _missing_features() -> list[str]:
    trial = Namespace(f"{PREFIX}trial")
    try:
        trial.delete()
        trial.create()
    except CommandError as error:
        return [f"network namespaces: {error}"]
    try:
        found = []
        for feature, command in FEATURES.items():
            try:
                trial.run(*command)
            except CommandError as error:
                found.append(f"the kernel's {feature}: {error}")
        return found
    finally:
        trial.delete()


SIDECAR: Final = ("setpriv", "--reuid=1337", "--regid=1337", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
"""How a sidecar is started: another user, without privileges."""


def _missing_for_other_users() -> list[str]:
    found = []
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}trial-") as folder:
        Path(folder).chmod(0o755)
        script = Path(folder) / "script"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        try:
            run(*SIDECAR, script)
        except CommandError as error:
            found.append(f"a temporary folder where any user may run programs (TMPDIR chooses another): {error}")
    try:
        python_for_everyone()
    except CommandError as error:
        found.append(str(error))
    return found


def python_for_everyone() -> str:
    """
    Return a Python that any user may run: the application's, which need not be root.

    One under a root-only home is of no use to it.
    """
    candidates = [sys.executable, *(str(Path(folder) / "python3") for folder in ("/usr/bin", "/usr/local/bin"))]
    for candidate in candidates:
        try:
            run("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", candidate, "-c", "import http.server")
        except CommandError:
            continue
        return candidate
    raise CommandError(f"a Python that any user may run, such as Debian's python3: none of {', '.join(candidates)} is")


def main() -> None:
    """Say what is missing and fail."""
    lacking = missing()
    for line in lacking:
        print(f"make proof lacks {line}", file=sys.stderr)
    sys.exit(1 if lacking else 0)


if __name__ == "__main__":
    main()
