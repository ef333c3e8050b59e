"""Face2Face-rho in training: a step of the generator (motion and rendering network), then one of the discriminator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ...errors import ModelError, ReenactError
from .. import build, settings_of
from ..checkpoints import find_checkpoint, load_into, save_state
from ..face2face_rho import MotionNet, MultiScaleDiscriminator, RenderingNet
from .dataset import FacePairs, read_videos
from .losses import (
    discriminator_loss,
    face_weight,
    feature_matching_loss,
    generator_adversarial_loss,
    init_field_loss,
    reconstruction_loss,
    warp_loss,
)
from .schedule import Schedule
from .settings import LossWeights, Settings, read_training_settings
from .task import Batch, Job, Outcome, Phase
from .vgg import Vgg19, default_vgg_path, load_vgg

__all__ = ["Face2FaceRho", "make_job", "prepare"]

Network = TypeVar("Network", bound=nn.Module)

_SCALES = (16, 8, 4)  # the motion network's inputs have the output's side over these
_SHOWN = 4  # samples in one picture


def prepare(config: Path, *, vgg: Path | None, say: Callable[[str], None]) -> Job:
    """The training that an official settings file describes; `vgg` is torchvision's VGG19 file.

    Raises ReenactError for settings, a list of videos, VGG19 or first checkpoints that cannot be used.
    """
    settings = read_training_settings(config)
    network = load_vgg(vgg or default_vgg_path())
    return make_job(settings, network, say=say)


def make_job(settings: Settings, vgg: Vgg19, *, say: Callable[[str], None], seed: int = 0) -> Job:
    """The training of these settings, seen through this VGG19; ReenactError as `prepare`."""
    videos = read_videos(settings.data)
    frames = sum(len(video.frames) for video in videos)
    persons = len({video.person for video in videos})
    say(f"{settings.data}: {persons} persons, {len(videos)} videos, {frames} frames")
    torch.manual_seed(seed)
    task = Face2FaceRho(settings, vgg)
    if settings.start is not None:
        _load_start(task, settings.folder, settings.start, say)
    return Job(
        task=task,
        samples=FacePairs(videos, size=settings.size, repeats=settings.num_repeats, seed=seed),
        schedule=Schedule(settings.policy, settings.niter, settings.niter_decay),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        workers=settings.workers,
        shuffle=settings.shuffle,
        folder=settings.folder,
        device=settings.device,
        seed=seed,
    )


class Face2FaceRho:
    """The task: three networks with an Adam each, and two phases. Batches are those of `FacePairs`."""

    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    frozen: Sequence[nn.Module]
    phases: Sequence[Phase]

    def __init__(self, settings: Settings, vgg: Vgg19) -> None:
        rendering = _built("rendering_net", RenderingNet, settings)
        motion = _built("motion_net", MotionNet, settings)
        discriminator = _built("discriminator", MultiScaleDiscriminator, settings)
        self.networks = {"rendering_net": rendering, "motion_net": motion, "discriminator": discriminator}
        self.optimizers = {
            name: Adam(network.parameters(), lr=settings.learning_rate, betas=(settings.beta1, 0.999))
            for name, network in self.networks.items()
        }
        self.frozen = (vgg,)
        critics = _Critics(vgg, discriminator, settings.weights)
        self.phases = (
            Phase(("rendering_net", "motion_net"), _Generator(rendering, motion, critics)),
            Phase(("discriminator",), _Discriminator(discriminator)),
        )

    def pictures(self, batch: Batch, made: Mapping[str, Tensor]) -> Tensor:
        """(3, rows * S, 3 * S): a row each of source, driving and fake."""
        columns = [batch["source"], batch["driving"], made["fake"]]
        rows = torch.cat([column[:_SHOWN].float().cpu() for column in columns], 3)
        return torch.cat(list((rows.clamp(-1, 1) + 1) / 2), 1)

    def write(self, folder: Path, suffix: str) -> None:
        """`<suffix>_<network>.pth` of each network."""
        for name, network in self.networks.items():
            save_state(network, folder / f"{suffix}_{name}.pth")


@dataclass(frozen=True)
class _Critics:
    """What judges the generator; no module, so that these networks are no part of what the phase trains."""

    vgg: Vgg19
    discriminator: MultiScaleDiscriminator
    weights: LossWeights


class _Generator(nn.Module):
    """The first phase: makes the fake and all losses of it."""

    def __init__(self, rendering: RenderingNet, motion: MotionNet, critics: _Critics) -> None:
        super().__init__()
        self.rendering, self.motion = rendering, motion
        self.critics = critics

    def forward(self, batch: Batch, _made: Mapping[str, Tensor], epoch: int) -> Outcome:
        source, driving = batch["source"], batch["driving"]
        # A field's sixteen bits near 1 are a tenth of a pixel apart, and this network is the cheapest of all.
        with torch.autocast(source.device.type, enabled=False):
            fields = self.motion(*_motion_inputs(batch))
        fake: Tensor = self.rendering(
            source, fields.high, batch["source_headpose"], batch["driving_headpose"]
        ).float()
        weights, critics = self.critics.weights, self.critics
        weight = face_weight(batch["mask"], weights.face_area)
        condition = batch["driving_landmarks_4"]
        with torch.no_grad():
            real_judgement = critics.discriminator(driving, condition)
        fake_judgement = critics.discriminator(fake, condition)
        terms = {
            "warp": warp_loss(fields, source, driving, weights.warp),
            "reconstruction": weights.reconstruction
            * reconstruction_loss(critics.vgg, fake, driving, weight, weights.scales),
            "gan": generator_adversarial_loss(fake_judgement),
            "feature_matching": weights.feature_matching
            * feature_matching_loss(real_judgement, fake_judgement, weight),
        }
        if epoch <= weights.init_field_epochs:
            terms["init_field"] = init_field_loss(fields, epoch, weights.init_field_epochs)
        return Outcome(terms, {"fake": fake.detach()})


class _Discriminator(nn.Module):
    """The second phase: tells the driving picture and the first phase's fake apart."""

    def __init__(self, discriminator: MultiScaleDiscriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, batch: Batch, made: Mapping[str, Tensor], _epoch: int) -> Outcome:
        condition = batch["driving_landmarks_4"]
        real = self.discriminator(batch["driving"], condition)
        fake = self.discriminator(made["fake"], condition)
        return Outcome({"discriminator": discriminator_loss(real, fake)}, {})


def _motion_inputs(batch: Batch) -> list[Tensor]:
    """Three of (B, 9, S/k, S/k): landmark images of source and driving, and every k-th pixel of the source."""
    return [
        torch.cat(
            [
                batch[f"source_landmarks_{k}"],
                batch[f"driving_landmarks_{k}"],
                batch["source"][:, :, ::k, ::k],
            ],
            1,
        )
        for k in _SCALES
    ]


def _built(name: str, kind: type[Network], settings: Settings) -> Network:
    full = f"face2face_rho/{name}"
    network = build(full, **settings_of(full, settings.networks))
    if not isinstance(network, kind):
        raise ReenactError(f"{full} is a {type(network).__name__}; training expects a {kind.__name__}")
    return network


def _load_start(task: Face2FaceRho, folder: Path, suffix: str, say: Callable[[str], None]) -> None:
    """Begin with published checkpoints; a release has no discriminator, so that one may begin afresh."""
    for name, network in task.networks.items():
        try:
            path = find_checkpoint(folder, name, suffix)
        except ModelError:
            if name != "discriminator":
                raise
            say(f"{folder}: has no {suffix}_discriminator.pth; the discriminator begins afresh")
            continue
        load_into(network, path)
