"""Setting up ends here, for a reason of ours."""

from __future__ import annotations

from tlstunnel.outcome import CloseReason


class Refusal(Exception):
    """The connection goes no further; `detail` is for people."""

    def __init__(self, reason: CloseReason, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(reason, detail)
