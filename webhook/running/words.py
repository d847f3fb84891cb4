"""What a row and an exception say in words, the same in every form of a scan."""

from collections.abc import Iterator
from typing import Final

from webhook.rules.decision import Mode, one_line
from webhook.rules.ends import End
from webhook.running.findings import ExceptionState, ExceptionUse, NamespaceOptOut, Row
from webhook.running.verdicts import Advice, Waiver

_DATE: Final = "%Y-%m-%d"


def notes(row: Row) -> Iterator[str]:
    """Yield what a row says beside its columns, a line each."""
    if row.advice in {Advice.AT_RISK, Advice.CHANGE, Advice.HEADER, Advice.OPTED_OUT} and row.after.cause:
        yield row.after.cause
    if row.advice is Advice.AT_RISK or (row.advice is Advice.RESTART and not row.restart):
        yield f"→ {row.fix}"
    if row.exception is not None:
        yield f"until {row.exception.expires.strftime(_DATE)}: {waiver_said(row.exception)}"
    if row.ended is not None:
        ended = row.ended.expires.strftime(_DATE)
        yield f"! exception {row.ended.name} of {one_line(row.ended.owner)} ended on {ended}"
    if row.mode is Mode.AUDIT and row.advice is not Advice.RESTART:
        yield "audit only: nothing is patched"
    if row.disagreeing is not None:
        yield f"! annotation and proxy disagree ({row.disagreeing.count}): {_few(row.disagreeing.names)}"
    if row.stranded is not None:
        yield f"! pods on nodes that do not support TPROXY ({row.stranded.count}): {_few(row.stranded.names)}"
    if row.gateway is not None:
        yield from (f"! {warning}" for warning in row.gateway.warnings)


def _few(names: list[str]) -> str:
    return ", ".join(names)


def waiver_said(waiver: Waiver) -> str:
    """Return why an exception is there, and whose it is."""
    ticket = f", {one_line(waiver.ticket)}" if waiver.ticket else ""
    return f"{one_line(waiver.reason)} ({one_line(waiver.owner)}{ticket})"


def opt_out_said(out: NamespaceOptOut) -> str:
    """Return what there is to say of a namespace's opt-out that has an end."""
    end, owner = out.until.strftime("%Y-%m-%d %H:%M UTC"), out.owner or "without an owner"
    if out.state is End.ENDED:
        return f"ended {end}, {owner}; it is still in effect"
    return f"ends {end}, {owner}"


def exception_said(use: ExceptionUse) -> str:
    """Return what there is to say of an exception."""
    end = use.exception.expires.strftime("%Y-%m-%d %H:%M UTC")
    owner = one_line(use.exception.owner)
    match use.state:
        case ExceptionState.ENDED:
            return f"ended {end}, {owner}; it would cover {use.covers}"
        case ExceptionState.UNUSED:
            return f"matches nothing; ends {end}, {owner}"
        case _:
            return f"ends {end}, {owner}; it covers {use.covers}"
