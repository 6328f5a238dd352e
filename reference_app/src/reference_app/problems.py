"""What the application says when it cannot do as asked: one JSON form for every error."""

from __future__ import annotations

from typing import Any


class Problem(Exception):
    """An answer other than success: HTTP status, a stable code, one sentence, and seconds until a retry makes sense."""

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    def body(self, request_id: str = "") -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"code": self.code, "message": self.message, "request_id": request_id}}


class ModelProblem(Exception):
    """A model folder that the application refuses, in one sentence."""
