"""What the lab needs of a machine, asked before anything starts: whatever is missing is named, nothing is skipped."""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from tests.proof.namespaces import PREFIX, CommandError, Namespace, clean, run

COMMANDS: Final = {
    "ip": "iproute2",
    "ss": "iproute2",
    "sysctl": "procps",
    "setpriv": "util-linux",
    "iptables": "iptables",
    "ip6tables": "iptables",
    "iptables-save": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
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
    "IPv6 addresses": ("ip", "-6", "addr", "add", "fd00::1/128", "dev", "lo"),
    "nftables verdict maps": ("nft", "add table ip cip; add map ip cip m { type inet_service : verdict ; }"),
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
    return _missing_features()


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
    raise CommandError(f"no Python that user 1000 may run among {', '.join(candidates)}")


def main() -> None:
    """Say what is missing and fail, or remove what a killed run left (`--clean`)."""
    if sys.argv[1:] == ["--clean"]:
        clean()
        return
    lacking = missing()
    for line in lacking:
        print(f"make proof lacks {line}", file=sys.stderr)
    sys.exit(1 if lacking else 0)


if __name__ == "__main__":
    main()
