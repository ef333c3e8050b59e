"""DECA in training: one of its three stages, pretrain, coarse or detail, on photos of subjects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from ...errors import ModelError
from .. import build
from ..checkpoints import load_state, require_fit, save_states
from ..deca_files import DECA_CHECKPOINT, read_deca_model
from ..deca_pictures import landmarks_picture
from ..deca_skin import UV_SIDE, HeadSkin, skin_of
from ..deca_texture import FlameTex
from ..flame import Flame
from ..flame_files import DECA_SITE, Albedo
from ..kept import kept_albedo, kept_flame, kept_landmarks, kept_template
from .deca_data import SubjectPhotos, read_photo_set
from .deca_settings import CoarseWeights, DetailWeights, Settings, read_deca_settings
from .deca_stages import Coarse, CoarseCritics, Detail, DetailCritics, FaceModel
from .schedule import Schedule
from .task import Batch, Job, Phase
from .vgg import default_vgg_path, load_vgg
from .vggface import VGGFACE_FILE, load_vggface

__all__ = ["NETWORKS", "Deca", "Helpers", "face_model", "make_job", "new_networks", "prepare"]

NETWORKS = ("E_flame", "E_detail", "D_detail")  # as `deca_model.tar` names them
_SHOWN = 4  # photos in one picture
_COUNTER = "num_batches_tracked"
_LAST = "fc."  # torchvision's last layer, for ImageNet's classes


@dataclass(frozen=True)
class Helpers:
    """What training looks through and never changes."""

    face: FaceModel
    recognition: nn.Module | None  # None where the identity loss does not count
    vgg: nn.Module | None  # None where the MRF loss does not count


def prepare(config: Path, *, vgg: Path | None, say: Callable[[str], None]) -> Job:
    """The training that a settings file describes, with the FLAME model and DECA's files that the user has added.

    `vgg` is torchvision's VGG19 file. Raises ReenactError for settings, data, first weights and helping networks that
    cannot be used; for one that is missing it says which loss needs it and how to do without.
    """
    settings = read_deca_settings(config)
    weights = settings.weights
    albedo = _albedo(settings) if weights.draws else None
    face = face_model(Flame(kept_flame(), kept_landmarks()), skin_of(kept_template()), albedo)
    recognition = (
        _recognition(settings) if isinstance(weights, CoarseWeights) and weights.identity > 0 else None
    )
    seen_by = _vgg(vgg) if isinstance(weights, DetailWeights) and weights.mrf > 0 else None
    return make_job(settings, Helpers(face, recognition, seen_by), new_networks(settings, say=say), say=say)


def new_networks(settings: Settings, *, say: Callable[[str], None], seed: int = 0) -> dict[str, nn.Module]:
    """The three networks as training begins: of the settings' `start` or `resnet`, else at random."""
    torch.manual_seed(seed)
    networks = {name: build(f"deca/{name.lower()}") for name in NETWORKS}
    if settings.start is not None:
        states = read_deca_model(settings.start)
        for name, network in networks.items():
            network.load_state_dict(states[name.lower()])
        say(f"all networks begin with {settings.start}")
    elif settings.resnet is not None:
        state = _imagenet(settings.resnet, networks["E_flame"])
        for name in ("E_flame", "E_detail"):
            networks[name].get_submodule("encoder").load_state_dict(state)
        say(f"the encoders begin with {settings.resnet}, the other layers at random")
    else:
        say(
            "all networks begin at random; the published ones began with ImageNet's ResNet-50, as resnet_path does"
        )
    return networks


def make_job(
    settings: Settings,
    helpers: Helpers,
    networks: Mapping[str, nn.Module],
    *,
    say: Callable[[str], None],
    seed: int = 0,
) -> Job:
    """The training of these networks, NETWORKS by name; ReenactError for data that cannot be used."""
    sets = [read_photo_set(folder, settings.photos) for folder in settings.data]
    samples = SubjectPhotos(
        sets, photos=settings.photos, crops=settings.crops, repeats=settings.repeats, seed=seed
    )
    unmarked, photos = samples.unmarked()
    subjects = sum(len(photo_set.subjects) for photo_set in sets)
    say(f"{', '.join(map(str, settings.data))}: {subjects} subjects, {photos} photos")
    if unmarked:
        say(f"{unmarked} of the photos have no mask; everything in them counts as skin")
    return Job(
        task=Deca(settings, helpers, networks),
        samples=samples,
        schedule=Schedule("lambda", settings.epochs, 0),
        epochs=range(settings.epochs),
        batch_size=settings.batch_size,
        workers=settings.workers,
        shuffle=settings.shuffle,
        folder=settings.folder,
        device=settings.device,
        seed=seed,
        steps=settings.steps,
    )


def face_model(flame: Flame, skin: HeadSkin, albedo: Albedo | None) -> FaceModel:
    """What heads are drawn with; without skin colours nothing can be compared with photos."""
    if albedo is None:
        return FaceModel(flame, skin, None)
    colours = FlameTex(albedo.basis.shape[1])
    mean, basis = torch.tensor(albedo.mean)[None, None], torch.tensor(albedo.basis)[None]
    colours.load_state_dict({"texture_mean": mean, "texture_basis": basis})
    return FaceModel(flame, skin, colours)


class Deca:
    """The task: one phase. Batches are those of `SubjectPhotos`."""

    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    frozen: Sequence[nn.Module]
    phases: Sequence[Phase]

    def __init__(self, settings: Settings, helpers: Helpers, networks: Mapping[str, nn.Module]) -> None:
        self.networks = {name: networks[name] for name in NETWORKS}
        self.frozen = [each for each in (helpers.face, helpers.recognition, helpers.vgg) if each is not None]
        weights, e_flame = settings.weights, networks["E_flame"]
        if isinstance(weights, DetailWeights):
            judges = DetailCritics(e_flame, helpers.face, helpers.vgg, weights, settings.consistency)
            step: nn.Module = Detail(networks["E_detail"], networks["D_detail"], judges)
            trained: tuple[str, ...] = ("E_detail", "D_detail")
        else:
            step = Coarse(
                e_flame, CoarseCritics(helpers.face, helpers.recognition, weights, settings.consistency)
            )
            trained = ("E_flame",)
        self.phases = (Phase(trained, step),)
        self.optimizers = {
            name: Adam(networks[name].parameters(), lr=settings.learning_rate) for name in trained
        }

    def pictures(self, batch: Batch, made: Mapping[str, Tensor]) -> Tensor:
        """A row a photo: where its landmarks are and where the head's, and what is drawn; or photo and skins."""
        photos = batch["images"].flatten(0, 1)[:_SHOWN].cpu()
        if "landmarks" in made:
            targets = batch["landmarks"].flatten(0, 1)[..., :2]
            columns = [_with_landmarks(photos, points) for points in (targets, made["landmarks"])]
            columns += [made["rendered"]] if "rendered" in made else []
        else:
            enlarged = functional.interpolate(
                photos, (UV_SIDE, UV_SIDE), mode="bilinear", align_corners=False
            )
            columns = [enlarged, *(made[name] for name in ("target", "texture", "shading") if name in made)]
        rows = torch.cat([column[:_SHOWN].float().cpu() for column in columns], 3)
        return torch.cat(list(rows.clamp(0, 1)), 1)

    def write(self, folder: Path, suffix: str) -> None:
        """`deca_model.tar`, the latest, or `<suffix>_deca_model.tar`."""
        path = folder / (DECA_CHECKPOINT if suffix == "latest" else f"{suffix}_{DECA_CHECKPOINT}")
        save_states(self.networks, path)


def _with_landmarks(photos: Tensor, points: Tensor) -> Tensor:
    side = photos.shape[3]
    pixels = ((points[: len(photos)].float().cpu() + 1) * (side / 2)).numpy()
    drawn = [
        landmarks_picture(photo.numpy(), place) for photo, place in zip(photos.float(), pixels, strict=True)
    ]
    return torch.from_numpy(np.stack(drawn))


def _albedo(settings: Settings) -> Albedo:
    albedo = kept_albedo()
    if albedo is None:
        others = "mrf" if settings.stage == "detail" else "identity"
        raise ModelError(
            f"photo_weight and {others}_weight ask for heads in colour, and no skin colours were added: put "
            f"FLAME_albedo_from_BFM.npz, as {DECA_SITE} says how to make, beside DECA's files and run reenact models "
            f"add deca FOLDER again; or set photo_weight = 0 and {others}_weight = 0 to train without these losses"
        )
    return albedo


def _recognition(settings: Settings) -> nn.Module:
    without = "or set identity_weight = 0 to train without the identity loss"
    if settings.recognition is None:
        raise ModelError(
            "the identity loss compares faces as VGGFace2's ResNet-50 sees them: name its file "
            f"({VGGFACE_FILE}) as fr_model_path in the settings, {without}"
        )
    try:
        return load_vggface(settings.recognition)
    except ModelError as error:
        raise ModelError(f"{error}. It is for the identity loss; {without}") from error


def _vgg(path: Path | None) -> nn.Module:
    try:
        return load_vgg(path or default_vgg_path())
    except ModelError as error:
        raise ModelError(f"{error}; or set mrf_weight = 0 to train without the ID-MRF loss") from error


def _imagenet(path: Path, encoder: nn.Module) -> dict[str, Tensor]:
    """Torchvision's ResNet-50 without its last layer."""
    expected = encoder.get_submodule("encoder").state_dict()
    state = {name: value for name, value in load_state(path).items() if not name.startswith(_LAST)}
    for name, there in expected.items():
        if name.endswith(_COUNTER):
            state.setdefault(name, torch.zeros_like(there))
    require_fit(path, "torchvision's ResNet-50", state, expected)
    return state
