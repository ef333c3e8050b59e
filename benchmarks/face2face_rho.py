"""Face2Face-rho as it is run for a driving frame by those who published it; needs nothing but torch."""

from torch import Tensor, nn

from ..reference import build
from ..reference.face2face_rho import MotionNet, RenderingNet, SourceFeatures
from ..reference.fill import Rules, fill

__all__ = ["PublishedFrame", "networks_by_rule"]


class PublishedFrame(nn.Module):
    """What the authors of Face2Face-rho run for each driving frame."""

    def __init__(self, rendering: RenderingNet, motion: MotionNet) -> None:
        super().__init__()
        self.rendering, self.motion = rendering, motion

    def forward(self, *given: Tensor) -> Tensor:
        """Four features, three inputs of the motion network (1, 9, s, s), pose (1, 6); (1, 3, S, S) in [-1, 1]."""
        *features, input1, input2, input3, head_pose = given
        field = self.motion(input1, input2, input3).high
        return self.rendering.decode(SourceFeatures(*features), field, head_pose)


def networks_by_rule() -> tuple[RenderingNet, MotionNet]:
    """Both networks with weights that no training made, but that keep activations in a useful range."""
    rendering, motion = build("face2face_rho/rendering_net"), build("face2face_rho/motion_net")
    assert isinstance(rendering, RenderingNet)
    assert isinstance(motion, MotionNet)
    fill(rendering, Rules(gain={r"\.conv\.(0|3|6)\.weight$": 0.8, r"embedding_module[12]\.0\.weight$": 4.0}))
    small = {r"\.conv2\.weight$": 0.3, r"^model[12]_3\.weight$": 0.1, r"^f1_motion\.weight$": 0.5}
    fill(motion, Rules(gain=small))
    return rendering, motion
