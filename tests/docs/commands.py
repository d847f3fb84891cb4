"""
Commands that pages and help texts show are commands: subcommands, options, choices, make targets, chart values.

What a page shows is parsed by the command's own parser; nothing is run.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
import yaml

from tests.docs.pages import SAMPLES, Line, code, lines, pages, tracked
from tests.parts.cache import ROOT
from webhook.cli.main import COMMANDS, client_ip

OURS: Final = re.compile(r"(?:^|[\s`(|;&/$])((?:kubectl\s+)?client-ip(?:\s+[^`]*)?)$")
ENDS: Final = re.compile(r"\s+(?:\||>>?|2>|&&|;|#|\()\s*.*$|\s{2,}.*$")
"""Where a shown command ends: a pipe, a redirection, the next command, a comment, or an explanation beside it."""
ELIDED: Final = ("…", "...", "\\")
FOREIGN: Final = frozenset(
    (
        *("--build-arg", "--cni-mode", "--create-namespace", "--network-namespace", "--no-deps", "--only-binary"),
        *("--overwrite", "--privileged", "--require-hashes", "--server-side", "--set", "--timestamps", "--values"),
    )
)
"""Options of other programs that pages name alone, without their command."""


def faults() -> Iterator[str]:
    """Yield what a page or a help text shows and the program would refuse, a sentence each."""
    for page in pages():
        for line in joined(code(page)):
            yield from command(line)
            yield from target(line)
            yield from values(line)
            yield from options(line)
            yield from environment(line)
    for path in tracked():
        if path.is_relative_to(ROOT / "webhook" / "cli") and path.suffix == ".py":
            for line in joined(examples(path)):
                yield from command(line)
        elif path.suffix in {".txt", ".yaml", ".tpl"} and path.is_relative_to(ROOT / "deploy"):
            for line in lines(path):
                yield from command(line)


def examples(path: Path) -> Iterator[Line]:
    """Yield the examples of a command's help: lines that begin with its name."""
    for line in lines(path):
        if re.match(r"\s+(kubectl )?client-ip ", line.text):
            yield Line(path, line.number, line.text.strip())


def joined(found: Iterator[Line]) -> Iterator[Line]:
    r"""Yield lines, those that end in `\` with the next."""
    begun: Line | None = None
    for line in found:
        text = f"{begun.text} {line.text}" if begun else line.text
        number = begun.number if begun else line.number
        if text.endswith("\\"):
            begun = Line(line.path, number, text[:-1].rstrip())
        else:
            begun = None
            yield Line(line.path, number, text)


def command(line: Line) -> Iterator[str]:
    """Yield why a `client-ip` command would be refused."""
    match = OURS.search(line.text)
    if match is None or re.search(r"client-ip[.:/_-]", match[1].split()[-1] if " " not in match[1] else ""):
        return
    words = _words(match[1])
    words = words[words.index("client-ip") + 1 :] if "client-ip" in words else []
    if words and re.match(r"[a-z]", words[0]):
        try:
            parse(client_ip, "client-ip", words)
        except click.BadOptionUsage as error:
            if error.option_name != words[-1]:  # else the page speaks of the option itself
                yield f"{line.where}: `{' '.join(['client-ip', *words])}`: {error.format_message()}"
        except click.ClickException as error:
            yield f"{line.where}: `{' '.join(['client-ip', *words])}`: {error.format_message()}"


def parse(chosen: click.Command, name: str, words: list[str]) -> None:
    """
    Parse *words* as *chosen* would, without running it; a text in capitals stands for any value.

    Raises:
        click.ClickException: It would refuse them.

    """
    context = click.Context(chosen, info_name=name)
    if isinstance(chosen, click.Group):
        head, *rest = words or ["--help"]
        if head in {"-h", "--help", "--version"}:
            return
        found = chosen.get_command(context, head)
        if found is None:
            raise click.UsageError(f"there is no command {head}")
        parse(found, head, rest)
        return
    if {"-h", "--help"} & set(words):
        return
    given, left, _ = chosen.make_parser(context).parse_args(list(words))
    if left:
        raise click.UsageError(f"takes no {left[0]}")
    for parameter in chosen.params:
        value = given.get(parameter.name)
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, str) and isinstance(parameter.type, click.Choice) and not each.isupper():
                parameter.type.convert(each, parameter, context)


def target(line: Line) -> Iterator[str]:
    """Yield targets that make does not know."""
    for name in re.findall(r"(?:^|&& |; )make ([a-z][a-z-]*)", line.text):
        if name not in targets():
            yield f"{line.where}: `make {name}`: there is no such target"


def values(line: Line) -> Iterator[str]:
    """Yield values that the chart does not have."""
    for name in re.findall(r"--set(?:-string|-file)?[ =]([\w.]+)=", line.text):
        if "deploy/chart" in line.text and _at(chart(), name.split(".")) is None:
            yield f"{line.where}: `--set {name}`: the chart has no such value"


def options(line: Line) -> Iterator[str]:
    """Yield options that a page names alone and that no command has."""
    if line.text.startswith("--") and not line.text.startswith("---"):  # which begins a YAML document
        name = re.split(r"[\s=,`]", line.text)[0].rstrip("*")
        if name not in known_options() | FOREIGN and not name.endswith(ELIDED):
            yield f"{line.where}: `{name}`: no command has this option"


def environment(line: Line) -> Iterator[str]:
    """Yield variables of the environment that nothing reads."""
    for name in re.findall(r"\bCLIENT_IP_[A-Z_]*[A-Z]\b(?!…|\*)", line.text):
        if name not in variables():
            yield f"{line.where}: nothing reads {name}"


@cache
def commands() -> dict[str, click.Command]:
    """Return every command by its path, as `certs rotate`."""
    found: dict[str, click.Command] = {}
    context = click.Context(client_ip)
    waiting: list[tuple[tuple[str, ...], click.Command | None]]
    waiting = [((name,), client_ip.get_command(context, name)) for name in COMMANDS]
    while waiting:
        path, each = waiting.pop()
        assert each is not None, path
        found[" ".join(path)] = each
        if isinstance(each, click.Group):
            waiting += [((*path, name), inner) for name, inner in each.commands.items()]
    return found


@cache
def known_options() -> frozenset[str]:
    """Return every option of every command."""
    parameters = (each for found in commands().values() for each in found.params)
    return frozenset(name for each in parameters for name in (*each.opts, *each.secondary_opts)) | {"--help", "-h"}


@cache
def variables() -> frozenset[str]:
    """Return the variables of the environment that commands and suites read."""
    found = {f"CLIENT_IP_{each.name}".upper() for each in commands()["serve"].params}
    for path in tracked():
        if (path.suffix == ".py" and path != SAMPLES) or path.name in {"Makefile", "Dockerfile"}:
            found |= set(re.findall(r"\bCLIENT_IP_[A-Z_]*[A-Z]\b", path.read_text()))
    return frozenset(found)


@cache
def targets() -> frozenset[str]:
    """Return make's targets."""
    return frozenset(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def chart() -> Mapping[str, Any]:
    """Return the chart's values."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "chart" / "values.yaml").read_text())
    return loaded


def _at(found: Any, path: list[str]) -> Any:
    for name in path:
        if not isinstance(found, Mapping):
            return found
        if name not in found:
            return None if found else found
        found = found[name]
    return found


def _words(text: str) -> list[str]:
    """Return the words of a shown command, without what is optional or left out."""
    text = ENDS.sub("", re.sub(r"[\[\]]", "", re.sub(r"<\([^)]*\)", "FILE", text)))
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return [word.rstrip(",;") for word in words if word not in ELIDED and not word.endswith("…")]
