"""A mistake in what somebody wrote, and where it stands."""

from dataclasses import dataclass

from webhook.rules.decision import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake: the file, the document in it, the line and the field, as far as they are known."""

    file: str
    document: int = 0
    line: int = 0
    field: str = ""
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        document = f" (document {self.document})" if self.document else ""
        named = f" {self.field}:" if self.field else ""
        return shown(f"{where}{document}:{named} {self.message}")
