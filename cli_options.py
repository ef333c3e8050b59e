"""Options that several commands have, so that they are called and explained alike."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .runtime.media.limits import Limits

__all__ = ["Backend", "MaxPixels", "MaxSeconds", "Precision", "PrecisionName", "limits"]


class PrecisionName(StrEnum):
    """Arithmetic of the networks."""

    auto = "auto"
    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


Backend = Annotated[str, typer.Option(metavar="NAME", help="What runs the networks; see reenact doctor.")]
Precision = Annotated[PrecisionName, typer.Option(help="Arithmetic of the networks.")]
MaxPixels = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Largest picture that is read.", show_default=False)
]
MaxSeconds = Annotated[
    float | None, typer.Option(min=0.001, metavar="S", help="Longest video that is read.", show_default=False)
]


def limits(max_pixels: int | None, max_seconds: float | None = None) -> "Limits":
    """What may be read; what is not said is as it is by default."""
    from .runtime.media.limits import DEFAULT_LIMITS, Limits

    return Limits(max_pixels or DEFAULT_LIMITS.max_pixels, max_seconds or DEFAULT_LIMITS.max_seconds)
