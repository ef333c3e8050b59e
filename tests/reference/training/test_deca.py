"""DECA's stages learn a tiny set of photos of a known head, go on where they stopped, and say what is missing."""

import dataclasses

import pytest
import torch
from reenact.errors import ModelError, ReenactError
from reenact.reference.deca_files import read_deca_model
from reenact.reference.deca_render import sh_shading
from reenact.reference.deca_skin import detail_normals, vertex_normals, world_to_uv
from reenact.reference.fill import Rules, fill
from reenact.reference.training import deca_stages
from reenact.reference.training.board import NoBoard
from reenact.reference.training.deca import Helpers, make_job, new_networks
from reenact.reference.training.deca_data import Crops
from reenact.reference.training.deca_losses import shading_smoothness_loss
from reenact.reference.training.deca_settings import CoarseWeights, DetailWeights, Settings
from reenact.reference.training.distributed import Place
from reenact.reference.training.loop import Options, Trainer
from reenact.reference.training.vgg import Vgg19
from reenact.reference.training.vggface import VggFace

from . import faces

PHOTOS = {
    "anna": [{"exp": [1.0], "pose": [0, 0.2, 0, 0.1]}, {"pose": [0.05, -0.15, 0.05]}],
    "bert": [{"shape": [1.0, -1.0], "pose": [0, 0.1, 0]}, {"shape": [1.0, -1.0], "exp": [0, 1.0]}],
}


def unheard(line):
    pass


@pytest.fixture(scope="module")
def face():
    return faces.stand_in_face()


@pytest.fixture(scope="module")
def photos(face, tmp_path_factory):
    """Two persons, two photos each."""
    folder = tmp_path_factory.mktemp("photos")
    return faces.write_set(folder, face, PHOTOS)


@pytest.fixture
def make(face, photos, tmp_path):
    """Makes trainers: `make("coarse", steps=3, lr=..)` gives one and its job."""
    torch.manual_seed(11)
    looks = {"recognition": faces.LightLook(maps=False), "vgg": faces.LightLook(maps=True)}

    def build(stage, *, data=photos, networks=None, options=None, **changes):
        given = {
            "batch_size": 4 if stage == "pretrain" else 1,
            "photos": 1 if stage == "pretrain" else 2,
            "repeats": 2,
            "workers": 0,
            "epochs": 1000,
            "learning_rate": 1e-3,
            "crops": Crops(1.6, 1.6),
            "start": tmp_path / "unread" if stage == "detail" else None,
            "device": "cpu",
        }
        settings = Settings.of_stage(stage, tmp_path / "out", (data,), **(given | changes))
        job = make_job(settings, Helpers(face, **looks), networks or faces.light_networks(), say=unheard)
        return Trainer(job, Place(torch.device("cpu")), options or Options(steps=2), unheard), job

    return build


class Curve(NoBoard):
    def __init__(self):
        self.terms = []

    def scalars(self, values, step):
        self.terms.append({name.removeprefix("loss/"): v for name, v in values.items() if "loss/" in name})

    def mean(self, name, part):
        values = [terms[name] for terms in self.terms[part]]
        return sum(values) / len(values)


def weights(job):
    return {
        f"{name}.{key}": value.clone()
        for name, network in job.task.networks.items()
        for key, value in network.state_dict().items()
    }


def changed_networks(job, before):
    after = weights(job)
    return {name.partition(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize(
    ("stage", "steps", "terms", "falling"),
    [
        ("pretrain", 30, {"landmark", "eye", "lip", "shape", "exp"}, {"landmark": 0.6}),
        (
            "coarse",
            12,
            {"landmark", "eye", "lip", "photo", "identity", "shape", "exp", "tex", "light"},
            {"landmark": 0.7, "photo": 0.8},
        ),
    ],
)
def test_heads_are_fitted_to_photos(make, stage, steps, terms, falling):
    trainer, job = make(stage, options=Options(steps=steps, log_every=1))
    before, curve = weights(job), Curve()
    trainer.run(curve)
    assert set(curve.terms[0]) == terms
    for name, share in falling.items():
        assert curve.mean(name, slice(-3, None)) < share * curve.mean(name, slice(2))
    assert changed_networks(job, before) == {"E_flame"}


def test_wrinkles_are_fitted_to_photos_and_the_heads_stay(make, face, tmp_path):
    heights = 0.002 * torch.sin(torch.arange(256.0) / 5)[None, None, :, None].expand(1, 1, 256, 256)
    light = {"light": [[2.0] * 3, [0.1] * 3, [0.9] * 3, [0.4] * 3]}
    data = faces.write_set(tmp_path / "wrinkled", face, {"anna": [light, light]}, heights)
    networks = faces.light_networks(faces.flat(faces.cropped(face, faces.codes(**light), 1.6)))
    torch.nn.init.zeros_(networks["E_flame"].last.weight)
    trainer, job = make(
        "detail",
        data=data,
        networks=networks,
        learning_rate=1e-2,
        weights=DetailWeights(photo=50),
        options=Options(steps=12, log_every=1),
    )
    before, curve = weights(job), Curve()
    trainer.run(curve)
    assert set(curve.terms[0]) == {"photo", "mrf", "height", "smoothness", "symmetry"}
    for name, share in {"photo": 0.65, "mrf": 0.9}.items():
        assert curve.mean(name, slice(-2, None)) < share * curve.terms[0][name]
    after = weights(job)
    assert all(
        torch.equal(after[name], value) for name, value in before.items() if name.startswith("E_flame")
    )
    for name in ("E_detail.last.weight", "D_detail.grid.weight"):
        assert not torch.equal(after[name], before[name])


@pytest.mark.parametrize("stage", ["coarse", "detail"])
def test_a_resumed_training_gives_the_same_numbers(make, stage):
    trainer, straight = make(stage, options=Options(steps=3))
    ended = trainer.run(NoBoard())
    make(stage, options=Options(steps=2))[0].run(NoBoard())
    trainer, resumed = make(stage, options=Options(steps=1))
    trainer.resume()
    again = trainer.run(NoBoard())
    assert again.terms == ended.terms
    expected, moments = weights(straight), {}
    for name, value in weights(resumed).items():
        assert torch.equal(value, expected[name]), name
    for job in (straight, resumed):
        state = next(iter(job.task.optimizers.values())).state_dict()["state"]
        moments[id(job)] = [entries["exp_avg_sq"] for entries in state.values()]
    assert all(torch.equal(*pair) for pair in zip(*moments.values(), strict=True))


def test_half_precision_trains(make):
    trainer, _ = make("coarse", options=Options(steps=2, precision="amp"))
    whole = make("coarse", options=Options(steps=2))[0].run(NoBoard())
    done = trainer.run(NoBoard())
    assert done.terms["landmark"] == pytest.approx(whole.terms["landmark"], rel=0.2)
    assert done.terms["landmark"] != whole.terms["landmark"]


def test_codes_are_exchanged_within_a_subject_alone():
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        order = deca_stages.exchanged(2, 3)
        assert order[:3].sort().values.tolist() == [0, 1, 2]
        assert order[3:].sort().values.tolist() == [3, 4, 5]
        seen.add(tuple(order.tolist()))
    assert len(seen) > 5


def test_shapes_must_do_for_all_photos_of_a_subject(make, monkeypatch):
    """In the second half each photo is judged with the other's shape, and nothing else of the other."""
    judged = []
    monkeypatch.setattr(deca_stages, "exchanged", lambda subjects, photos: torch.tensor([1, 0]))
    monkeypatch.setattr(
        deca_stages.Coarse,
        "_judged",
        lambda self, codes, *rest: judged.append((codes, rest)) or ({"far": codes.shape.sum()}, {}, None),  # type: ignore[func-returns-value]
    )
    make("coarse", batch_size=1, options=Options(steps=1))[0].run(NoBoard())
    codes, (images, _, landmarks) = judged[0]
    assert len(codes.shape) == 4
    assert torch.equal(codes.shape[2:], codes.shape[:2].flip(0))
    assert not torch.equal(codes.shape[0], codes.shape[1])
    for kept in (codes.exp, codes.pose, codes.cam, codes.light, codes.tex, images, landmarks):
        assert torch.equal(kept[2:], kept[:2])


def test_a_loss_of_weight_0_is_left_out(make):
    only = CoarseWeights(photo=0, identity=0, tex=0, light=0, eye=0, lip=0)
    done = make("coarse", weights=only)[0].run(NoBoard())
    assert set(done.terms) == {"landmark", "shape", "exp"}


def test_identity_tells_nothing_to_colours_and_light(make, face):
    trainer, job = make(
        "coarse", weights=CoarseWeights(0, 0, 0, 0, 1.0, 0, 0, 0, 0), options=Options(steps=1)
    )
    trainer.run(NoBoard())
    gradient = job.task.networks["E_flame"].last.bias.grad
    assert gradient is not None
    found = deca_stages.codes_of(gradient[None])  # type: ignore[attr-defined]
    assert found.tex.abs().max() == 0
    assert found.light.abs().max() == 0
    assert found.shape.abs().max() > 0


def test_photos_are_fitted_by_light_as_well(make):
    """The published code dropped the light from this picture later; then no photo could teach it."""
    trainer, job = make(
        "coarse", weights=CoarseWeights(0, 0, 0, 1.0, 0, 0, 0, 0, 0), options=Options(steps=1)
    )
    trainer.run(NoBoard())
    found = deca_stages.codes_of(job.task.networks["E_flame"].last.bias.grad[None])  # type: ignore[attr-defined]
    for code in (found.light, found.tex, found.shape, found.cam):
        assert code.abs().max() > 0


def test_a_head_that_is_right_loses_nothing(face):
    """With the codes that the photos were made with, drawn as they were made, only rounding is left."""
    seen = faces.codes(**PHOTOS["anna"][0])
    picture, points, mask = faces.photograph(face, seen)
    batch = {
        "images": torch.from_numpy(picture / 255).float().permute(2, 0, 1)[None, None],
        "landmarks": torch.cat([torch.from_numpy(points) / 112 - 1, torch.ones(68, 1)], 1)[None, None],
        "masks": torch.from_numpy(mask)[None, None, None],
    }
    stage = deca_stages.Coarse(
        Fixed(faces.flat(seen)), deca_stages.CoarseCritics(face, None, CoarseWeights(identity=0), True)
    )
    terms = stage(batch, {}, 0).terms
    assert terms["landmark"].item() < 1e-6
    assert terms["photo"].item() < 2.0 * 0.5 / 255
    other = dataclasses.replace(seen, tex=seen.tex + 1)
    stage.e_flame = Fixed(faces.flat(other))
    assert stage(batch, {}, 0).terms["photo"].item() > 10 * terms["photo"].item()


def test_skin_without_wrinkles_is_lit_as_the_coarse_head_and_its_mask_makes_no_seams(face):
    """Beside the mask normals are the coarse ones, as published with the training: no border is to be smoothed."""
    seen, skin = faces.codes(light=[[2.0] * 3, [0.1] * 3, [0.9] * 3, [0.4] * 3]), face.skin
    batch = {"images": torch.full((1, 1, 3, 224, 224), 0.5), "masks": torch.ones(1, 1, 1, 224, 224)}
    critics = deca_stages.DetailCritics(
        Fixed(faces.flat(seen)), face, None, DetailWeights(photo=0, mrf=0, smoothness=1.0), False
    )
    heights = 0.003 * torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    shadings, smoothness = [], []
    for wrinkles in (torch.zeros_like(heights), heights):
        stage = deca_stages.Detail(Fixed(torch.zeros(128)), Fixed(wrinkles[0]), critics)
        done = stage(batch, {}, 0)
        shadings.append(done.made["shading"])
        smoothness.append(done.terms["smoothness"].item())
    head = face.posed(seen)
    normals = vertex_normals(skin, head.vertices)
    coarse = sh_shading(world_to_uv(skin, normals), seen.light)
    beside = (skin.wrinkled == 0).expand_as(coarse)
    assert beside.float().mean() > 0.1
    for shading in shadings:
        assert (shading - coarse)[beside].abs().max() < 1e-6
    seamed = sh_shading(detail_normals(skin, head.vertices, normals, torch.zeros_like(heights)), seen.light)
    assert smoothness[0] < 0.8 * shading_smoothness_loss(seamed).item()
    assert smoothness[1] > 1.5 * smoothness[0]


def test_checkpoints_are_read_as_the_published_ones_are(make, tmp_path):
    networks = new_networks(Settings.of_stage("pretrain", tmp_path, (tmp_path,)), say=unheard)
    _, job = make("pretrain", networks=networks)
    job.task.write(tmp_path, "latest")
    read = read_deca_model(tmp_path / "deca_model.tar")
    for name, network in networks.items():
        state = network.state_dict()
        assert set(read[name.lower()]) == set(state)
        assert all(torch.equal(read[name.lower()][key], value) for key, value in state.items())
    again = Settings.of_stage("detail", tmp_path, (tmp_path,), start=tmp_path / "deca_model.tar")
    begun = new_networks(again, say=unheard, seed=5)
    assert torch.equal(begun["E_detail"].layers[2].bias, networks["E_detail"].layers[2].bias)  # type: ignore[index, union-attr]
    networks["E_flame"].layers[2].bias.data[3] = torch.nan  # type: ignore[index, union-attr]
    with pytest.raises(ModelError, match=r"E_flame for .*1 not finite \(layers\.2\.bias\)"):
        job.task.write(tmp_path, "7")
    assert not (tmp_path / "7_deca_model.tar").exists()


@pytest.mark.slow
def test_the_real_networks_go_through_a_step_of_each_stage(request, face, photos, tmp_path):
    if "slow" not in request.config.getoption("markexpr"):
        pytest.skip("takes a minute; run with -m slow")
    recognition, vgg = VggFace(), Vgg19()
    fill(recognition, Rules(gain={r"bn3\.weight": 0.25}))
    fill(vgg, Rules())
    for stage, expected in (("pretrain", 5), ("coarse", 9), ("detail", 5)):
        folder = tmp_path / stage
        start = tmp_path / "coarse/deca_model.tar" if stage == "detail" else None
        settings = Settings.of_stage(
            stage,  # type: ignore[arg-type]
            folder,
            (photos,),
            batch_size=1,
            photos=2,
            workers=0,
            start=start,
            device="cpu",
        )
        networks = new_networks(settings, say=unheard)
        with torch.no_grad():
            networks["E_flame"].layers[2].weight *= 0.01  # type: ignore[index, union-attr]
            networks["E_flame"].layers[2].bias.copy_(faces.flat(faces.codes()))  # type: ignore[index, union-attr]
        job = make_job(settings, Helpers(face, recognition, vgg), networks, say=unheard)
        before = weights(job)
        trainer = Trainer(job, Place(torch.device("cpu")), Options(steps=1), unheard)
        assert len(trainer.run(NoBoard()).terms) == expected
        assert changed_networks(job, before) == (
            {"E_detail", "D_detail"} if stage == "detail" else {"E_flame"}
        )
        read_deca_model(folder / "deca_model.tar")


def test_an_erosion_takes_two_pixels_on_all_sides():
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:10, 2:9] = 1
    eroded = deca_stages._eroded(mask)
    assert eroded.sum() == 9
    assert eroded[..., 5:8, 4:7].all()


def test_pictures_show_photos_and_heads(make):
    trainer, _ = make("coarse")
    shown = []
    board = NoBoard()
    board.picture = lambda name, picture, step: shown.append(picture)  # type: ignore[assignment, method-assign]
    trainer.run(board)
    assert shown[0].shape == (3, 2 * 224, 3 * 224)
    assert shown[0].min() >= 0
    assert shown[0].max() <= 1


def test_what_a_stage_cannot_do_is_said(tmp_path):
    with pytest.raises(ReenactError, match=r"start is missing; expected weights with a trained E_flame"):
        Settings.of_stage("detail", tmp_path, (tmp_path,))
    with pytest.raises(ReenactError, match="the largest loss weight is 0"):
        Settings.of_stage(
            "detail", tmp_path, (tmp_path,), start=tmp_path, weights=DetailWeights(0, 0, 0, 0, 0)
        )


def test_too_few_subjects_for_a_batch_are_said(make):
    trainer, _ = make("coarse", batch_size=8)
    with pytest.raises(ReenactError, match="an epoch has 4 samples, not enough for one batch of 8"):
        trainer.run(NoBoard())


class Fixed(torch.nn.Module):
    """Sees the same in every photo."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = numbers

    def forward(self, images):
        return self.numbers.expand(len(images), *self.numbers.shape[-3:])
