"""Two processes with a share of a batch each do what one does with the whole batch."""

import os
import subprocess
import sys

import pytest
import torch
from reenact.errors import BackendError
from reenact.reference.training.distributed import place

SCRIPT = """
import sys
import torch
from torch import nn
from reenact.reference.checkpoints import save_state
from reenact.reference.training.board import NoBoard
from reenact.reference.training.distributed import Place, place
from reenact.reference.training.loop import Options, Trainer
from reenact.reference.training.schedule import Schedule
from reenact.reference.training.task import Job, Outcome, Phase
from pathlib import Path

torch.set_num_threads(1)


class Maker(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch, made, epoch):
        y = self.network(batch["x"])
        return Outcome({"far": (y - batch["y"]).abs().mean()}, {"y": y.detach()})


class Judge(Maker):
    def forward(self, batch, made, epoch):
        real, fake = self.network(batch["y"]), self.network(made["y"])
        return Outcome({"judged": (1 - real).square().mean() + fake.square().mean()}, {})


class Toy:
    frozen = ()

    def __init__(self, norm):
        torch.manual_seed(1)
        maker = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8) if norm else nn.ReLU(), nn.Conv2d(8, 3, 1))
        self.networks = {"maker": maker, "judge": nn.Conv2d(3, 4, 3)}
        self.optimizers = {k: torch.optim.Adam(n.parameters(), lr=0.01) for k, n in self.networks.items()}
        self.phases = (Phase(("maker",), Maker(maker)), Phase(("judge",), Judge(self.networks["judge"])))

    def pictures(self, batch, made):
        return torch.zeros(3, 2, 2)

    def write(self, folder, suffix):
        for name, network in self.networks.items():
            save_state(network, folder / f"{suffix}_{name}.pth")


class Pictures:
    def check(self):
        pass

    def __len__(self):
        return 8

    def __getitem__(self, draw):
        random = torch.Generator().manual_seed(draw.number)
        return {"x": torch.randn(3, 8, 8, generator=random), "y": torch.randn(3, 8, 8, generator=random)}


def train(name, here, norm, steps):
    task = Toy(norm)
    schedule = Schedule("lambda", 5, 0)
    job = Job(task, Pictures(), schedule, range(5), 4 // here.world, 0, True, out / name / str(here.rank), "cpu")
    Trainer(job, here, Options(steps=steps), lambda line: None).run(NoBoard())
    gradients = {k: [p.grad for p in n.parameters()] for k, n in task.networks.items()}
    weights = {k: [p.detach() for p in n.parameters()] for k, n in task.networks.items()}
    torch.save({"gradients": gradients, "weights": weights}, out / f"{name}_{here.rank}.pt")


out = Path(sys.argv[1])
with place("cpu") as here:
    assert here.world == 2
    for name, norm, steps in (("plain", False, 1), ("plain3", False, 3), ("norm", True, 3)):
        train(name, here, norm, steps)
        if here.rank == 0:
            train(f"single_{name}", Place(here.device), norm, steps)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder of what two processes ended with, and the first alone with their whole batches."""
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(folder)],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def read(folder, name, rank=0):
    return torch.load(folder / f"{name}_{rank}.pt", weights_only=True)


def differences(first, second):
    return [
        (a - b).abs().max().item() / (b.abs().max().item() or 1.0)
        for network in second
        for a, b in zip(first[network], second[network], strict=True)
    ]


def test_gradients_are_those_of_one_process_with_the_whole_batch(results):
    single, double = read(results, "single_plain"), read(results, "plain")
    assert max(differences(double["gradients"], single["gradients"])) < 1e-5


def test_weights_stay_those_of_one_process(results):
    single, double = read(results, "single_plain3"), read(results, "plain3")
    assert max(differences(double["weights"], single["weights"])) < 1e-4


def test_processes_keep_the_same_weights_also_with_batch_norm(results):
    first, second = read(results, "norm", 0), read(results, "norm", 1)
    assert max(differences(second["weights"], first["weights"])) == 0


def test_only_the_first_process_writes(results):
    names = sorted(path.name for path in (results / "norm/0").iterdir())
    assert names == ["0_judge.pth", "0_maker.pth", "latest_judge.pth", "latest_maker.pth", "latest_state.pth"]
    assert not (results / "norm/1").exists()


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with (
        pytest.raises(BackendError, match=r"GPU 0, but this PyTorch .* sees 0; .*--device cpu"),
        place("cuda"),
    ):
        pass
    with pytest.raises(BackendError, match="cpu or cuda, not on 'tpu'"), place("tpu"):
        pass
