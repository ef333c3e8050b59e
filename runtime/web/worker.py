"""The process in which one job runs: it reads what to make, tells its progress, and ends.

Run by `jobs.py` as `python -m reenact.runtime.web.worker`. A hostile video can only end its own job; ending the
process ends the job and gives all its memory back; and at low priority it leaves the cores to live sessions.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import ReenactError
from ..engine import choose
from ..media.limits import Limits
from ..reenactor import Reenactor
from .decoder import private_output
from .refusals import refusal_of

NICENESS = 10
MOST_BYTES = 500_000_000  # of the result
MEMORY = 8 << 30  # bytes of address space; a film of the largest photo and video takes a third of it


def main() -> None:
    """Serve one request."""
    answers = private_output()
    line = sys.stdin.buffer.readline()
    if not line:
        return
    _yield_to_others()
    wish = json.loads(line)
    try:
        _limit_memory(wish["backend"])
        _make(wish, answers)
        _tell(answers, {"state": "done"})
    except ReenactError as error:
        paths = [Path(wish[name]) for name in ("photo", "video", "output") if wish.get(name)]
        _tell(answers, {"state": "failed", "problem": refusal_of(error, *paths).message})


def _yield_to_others() -> None:
    os.nice(NICENESS)
    with suppress(ImportError):  # Windows has none
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if hard == resource.RLIM_INFINITY or hard > MOST_BYTES:
            resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))


def _limit_memory(backend: str) -> None:
    """Not with a GPU, whose driver reserves far more addresses than there is memory."""
    if choose(backend).gpu:
        return
    with suppress(ImportError):  # Windows has none
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _make(wish: dict[str, Any], answers: BinaryIO) -> None:
    def progress(done: int, total: int | None) -> None:
        _tell(answers, {"state": "running", "done": done, "total": total})

    strengths = {name: wish[name] for name in ("pose_strength", "expression_strength")}
    with Reenactor(
        Path(wish["photo"]),
        system=wish["system"],
        backend=wish["backend"],
        precision=wish["precision"],
        crop=wish["crop"],
        limits=Limits(wish["max_pixels"], wish["max_seconds"]),
    ) as reenactor:
        output = Path(wish["output"])
        if wish["video"] is None:
            reenactor.run_motion(wish["motion"], output, progress=progress, **strengths)
        else:
            reenactor.run(Path(wish["video"]), output, progress=progress, **strengths)


def _tell(answers: BinaryIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
