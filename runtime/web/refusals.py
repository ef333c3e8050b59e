"""Every answer that says no: a status, a word for programs, a sentence for people."""

import re
from pathlib import Path

from pydantic import BaseModel, Field

from ...errors import FaceNotFoundError, LimitError, MediaError, ReenactError

__all__ = ["Problem", "Refusal", "in_public", "refusal_of"]


class Problem(BaseModel):
    """The body of every answer that is an error."""

    code: str = Field(description="A word for programs, such as `busy` or `no_face`.", examples=["busy"])
    message: str = Field(description="A sentence for people.", examples=["All places are taken."])


class Refusal(Exception):  # noqa: N818  it is an answer like others
    """Something that a client asked for and does not get."""

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        """`retry_after` is in seconds, where waiting helps."""
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """What the answer's headers say beside its body."""
        if self.retry_after is not None:
            return {"Retry-After": str(self.retry_after)}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}

    @property
    def problem(self) -> Problem:
        """The answer's body."""
        return Problem(code=self.code, message=self.message)


# What a message of the runtime says of options of the command line, which a client has not.
_OPTIONS = re.compile(r",? (?:or |and )?(?:allow it |cut it )?with --[a-z-]+(?: \S+)?")
_PATH = re.compile(r"(?<![\w./])(?:/[\w.+@%-]+){2,}/?|\b[A-Z]:\\[\w.+@\\-]+")
_LONGEST = 400


def in_public(text: str, *paths: Path) -> str:
    """A line of the runtime as clients may read it: without the server's paths, and options that they have not."""
    for path in paths:
        text = text.removeprefix(f"{path}: ").replace(str(path), "the file")
    text = _PATH.sub("a file of the server", text)
    text = _OPTIONS.sub("", text).rstrip("; ")[:_LONGEST]
    return text[:1].upper() + text[1:]


def refusal_of(error: ReenactError, *paths: Path) -> Refusal:
    """What a client is told of an error of the runtime about files at `paths`, whose names stay with us."""
    text = in_public(str(error), *paths)
    if isinstance(error, FaceNotFoundError):
        return Refusal(422, "no_face", text)
    if isinstance(error, LimitError):
        return Refusal(413, "too_large", text)
    if isinstance(error, MediaError):
        return Refusal(422, "unreadable", text)
    return Refusal(409, "not_possible", text)
