"""The loop trains any task, stops when asked, goes on where it was and never leaves half a file."""

import copy
import itertools
import os
import signal

import pytest
import torch
from reenact.errors import ModelError, ReenactError
from reenact.reference.checkpoints import load_into, save_state
from reenact.reference.training.board import NoBoard
from reenact.reference.training.distributed import Place
from reenact.reference.training.loop import LATEST_STATE, Options, Trainer
from reenact.reference.training.schedule import Schedule
from reenact.reference.training.task import Job, Outcome, Phase
from torch import nn

CPU = Place(torch.device("cpu"))


def unheard(line):
    pass


class Maker(nn.Module):
    def __init__(self, line):
        super().__init__()
        self.line = line

    def forward(self, batch, made, epoch):
        y = self.line(batch["x"]) + 0.01 * torch.rand(())  # a network that draws random numbers
        return Outcome({"far": (y - batch["y"]).square().mean()}, {"y": y.detach()})


class Judge(nn.Module):
    def __init__(self, critic):
        super().__init__()
        self.critic = critic

    def forward(self, batch, made, epoch):
        return Outcome({"judged": (self.critic(made["y"]) - batch["y"]).square().mean()}, {})


class Toy:
    frozen = ()

    def __init__(self):
        torch.manual_seed(5)
        self.networks = {"line": nn.Linear(3, 1), "critic": nn.Linear(1, 1)}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=0.05) for name, network in self.networks.items()
        }
        self.phases = (
            Phase(("line",), Maker(self.networks["line"])),
            Phase(("critic",), Judge(self.networks["critic"])),
        )

    def pictures(self, batch, made):
        return torch.zeros(3, 2, 2)

    def write(self, folder, suffix):
        for name, network in self.networks.items():
            save_state(network, folder / f"{suffix}_{name}.pth")


class Points:
    """y = x . (1, 2, 3); `hook(count)` runs before each sample."""

    def __init__(self, hook=lambda count: None, length=8):
        self.hook, self.counter, self.length = hook, itertools.count(1), length

    def check(self):
        pass

    def __len__(self):
        return self.length

    def __getitem__(self, draw):
        self.hook(next(self.counter))
        x = torch.randn(3, generator=torch.Generator().manual_seed(draw.epoch * 100 + draw.number))
        return {"x": x, "y": (x @ torch.tensor([1.0, 2.0, 3.0]))[None]}


class Seen(NoBoard):
    def __init__(self):
        self.numbers, self.pictures = {}, []

    def scalars(self, values, step):
        self.numbers[step] = values

    def picture(self, name, picture, step):
        self.pictures.append(step)


@pytest.fixture
def make(tmp_path):
    def build(samples=None, said=None, task=None, epochs=range(3), policy="lambda", whole=None, **options):
        job = Job(
            task=task or Toy(),
            samples=samples or Points(),
            schedule=Schedule(policy, 1, 1),
            epochs=epochs,
            batch_size=2,
            workers=0,
            shuffle=True,
            folder=tmp_path / "out",
            device="cpu",
            steps=whole,
        )
        return Trainer(job, CPU, Options(**options), unheard if said is None else said.append), job

    return build


def weights(job):
    return {
        f"{name}.{key}": value
        for name, network in job.task.networks.items()
        for key, value in network.state_dict().items()
    }


def test_training_learns_and_saves_in_the_published_layout(make, tmp_path):
    trainer, job = make()
    done = trainer.run(NoBoard())
    assert (done.epoch, done.step, done.interrupted) == (3, 12, False)
    assert set(done.terms) == {"far", "judged"}
    folder = tmp_path / "out"
    names = {f"{s}_{n}.pth" for s in ("0", "1", "2", "latest") for n in ("line", "critic")} | {LATEST_STATE}
    assert {path.name for path in folder.iterdir()} == names
    again = nn.Linear(3, 1)
    load_into(again, folder / "latest_line.pth")
    assert torch.equal(again.weight, job.task.networks["line"].weight)


def test_the_steps_of_the_settings_count_over_all_runs(make):
    trainer, _ = make(whole=5, steps=3)
    done = trainer.run(NoBoard())
    assert (done.step, done.complete) == (3, False)
    trainer, _ = make(whole=5, steps=3)
    trainer.resume()
    done = trainer.run(NoBoard())
    assert (done.step, done.complete) == (5, True)


def test_a_network_without_an_optimizer_is_saved_as_it_was(make, tmp_path):
    task = Toy()
    task.networks["norm"] = nn.BatchNorm1d(2)  # type: ignore[assignment]
    before = copy.deepcopy(task.networks["norm"].state_dict())
    trainer, _ = make(task=task)
    trainer.run(NoBoard())
    assert not task.networks["norm"].training
    assert task.networks["line"].training
    again = nn.BatchNorm1d(2)
    load_into(again, tmp_path / "out/latest_norm.pth")
    assert all(torch.equal(value, before[key]) for key, value in again.state_dict().items())
    task = Toy()
    task.networks["norm"] = nn.BatchNorm1d(2)  # type: ignore[assignment]
    torch.nn.init.ones_(task.networks["norm"].bias)
    trainer, _ = make(task=task)
    trainer.resume()
    assert torch.equal(task.networks["norm"].bias, before["bias"])


def test_the_state_is_plain_tensors_that_load_without_executing_anything(make, tmp_path):
    make(steps=1)[0].run(NoBoard())
    state = torch.load(tmp_path / "out" / LATEST_STATE, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert state["progress/step"].item() == 1


@pytest.mark.parametrize("first", [1, 4, 7])
def test_stopped_and_resumed_gives_the_same_bits_as_in_one_go(make, first):
    whole, job = make(steps=10)
    whole.run(NoBoard())
    expected = {name: value.clone() for name, value in weights(job).items()}
    make(steps=first)[0].run(NoBoard())
    second, resumed = make(steps=10 - first)
    second.resume()
    assert second.run(NoBoard()).step == 10
    for name, value in weights(resumed).items():
        assert torch.equal(value, expected[name]), name


def test_a_plateau_is_remembered_in_the_middle_of_an_epoch(make):
    make(steps=6, policy="plateau")[0].run(NoBoard())
    trainer, job = make(policy="plateau")
    trainer.resume()
    assert job.schedule.best is not None
    assert (trainer.progress.epoch, trainer.progress.epoch_samples, trainer.progress.loss_steps) == (1, 4, 2)
    assert trainer.progress.loss_sum > 0


def test_the_learning_rate_follows_the_schedule(make):
    trainer, job = make()
    trainer.run(NoBoard())  # 1 epoch steady, 1 of decay: the last factor is a half
    assert job.task.optimizers["line"].param_groups[0]["lr"] == pytest.approx(0.05 * 0.5)


def test_a_phase_changes_its_own_networks_only(make):
    trainer, job = make(steps=1)
    job.task.optimizers["line"].param_groups[0]["lr"] = 0.0
    trainer, job = Trainer(job, CPU, Options(steps=1), unheard), job
    before = {name: value.clone() for name, value in weights(job).items()}
    trainer.run(NoBoard())
    after = weights(job)
    assert torch.equal(after["line.weight"], before["line.weight"])
    assert not torch.equal(after["critic.weight"], before["critic.weight"])


def test_ctrl_c_ends_the_step_saves_and_can_be_resumed(make, tmp_path):
    def interrupt(count):
        if count == 5:  # in the third step of two samples
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    done = make(Points(interrupt))[0].run(NoBoard())
    assert signal.getsignal(signal.SIGINT) is before
    assert (done.interrupted, done.step) == (True, 3)
    trainer, _ = make()
    trainer.resume()
    assert trainer.run(NoBoard()).step == 12


def test_a_second_ctrl_c_ends_at_once(make):
    def interrupt(count):
        if count in (5, 6):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make(Points(interrupt))[0].run(NoBoard())


def test_an_interrupt_while_saving_leaves_the_old_files_whole(make, tmp_path, monkeypatch):
    make(steps=2)[0].run(NoBoard())
    folder = tmp_path / "out"
    old = {path.name: path.read_bytes() for path in folder.iterdir()}

    def interrupted(_descriptor):
        raise KeyboardInterrupt

    trainer, _ = make(steps=1)
    trainer.resume()
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(NoBoard())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == old
    monkeypatch.undo()
    again, _ = make(steps=1)
    again.resume()
    assert again.run(NoBoard()).step == 3


def test_weights_newer_than_the_state_do_not_matter_for_resuming(make, tmp_path):
    make(steps=2)[0].run(NoBoard())
    (tmp_path / "out/latest_line.pth").write_bytes(b"half a file")
    trainer, _ = make(steps=1)
    trainer.resume()
    assert trainer.run(NoBoard()).step == 3


def test_a_loss_that_is_not_finite_stops_with_its_name_and_step(make, tmp_path):
    make(steps=2)[0].run(NoBoard())
    old = (tmp_path / "out" / LATEST_STATE).read_bytes()
    trainer, job = make()
    trainer.resume()
    with torch.no_grad():
        job.task.networks["critic"].bias.fill_(float("nan"))
    with pytest.raises(
        ReenactError, match=r"the loss 'judged' is nan at step 3 \(epoch 0\).*smaller lr.*--resume"
    ):
        trainer.run(NoBoard())
    assert (tmp_path / "out" / LATEST_STATE).read_bytes() == old


def test_a_loss_that_is_not_finite_before_anything_was_saved_sends_nobody_to_resume(make, tmp_path):
    trainer, job = make()
    with torch.no_grad():
        job.task.networks["critic"].bias.fill_(float("nan"))
    with pytest.raises(
        ReenactError, match=r"at step 1 .*begin anew, as no state was saved in .*out"
    ) as caught:
        trainer.run(NoBoard())
    assert "--resume" not in str(caught.value)


def test_numbers_and_pictures_come_when_they_are_due(make):
    said: list[str] = []
    seen = Seen()
    trainer, _ = make(said=said, log_every=5, pictures_every=4)
    trainer.run(seen)
    assert list(seen.numbers) == [4, 5, 8, 10, 12]  # an epoch has 4
    assert set(seen.numbers[5]) == {"loss/far", "loss/judged", "samples_per_second", "learning_rate_factor"}
    assert seen.numbers[5]["samples_per_second"] > 0
    assert seen.pictures == [1, 5, 9]
    assert said[1].startswith("epoch 1, step 5: far ")


def test_each_line_of_the_log_is_of_one_epoch(make):
    said: list[str] = []
    seen = Seen()
    done = make(said=said)[0].run(seen)
    starts = ["epoch 0, step 4: ", "epoch 1, step 8: ", "epoch 2, step 12: "]
    assert [line[: len(start)] for line, start in zip(said, starts, strict=True)] == starts
    assert [numbers["learning_rate_factor"] for numbers in seen.numbers.values()] == [1, 1, 0.5]
    assert done.where == "after epoch 2"


@pytest.mark.parametrize(("steps", "where"), [(3, "in epoch 0"), (4, "after epoch 0"), (5, "in epoch 1")])
def test_the_end_of_a_run_is_placed_among_the_epochs(make, steps, where):
    assert make(steps=steps)[0].run(NoBoard()).where == where


def test_numbered_checkpoints_come_after_so_many_samples(make, tmp_path):
    make(save_every=10, steps=6)[0].run(NoBoard())  # 2 samples a step
    assert (tmp_path / "out/iter_10_line.pth").is_file()
    assert not (tmp_path / "out/iter_12_line.pth").is_file()


def test_mixed_precision_trains_on_a_cpu(make):
    first = make(precision="amp", steps=1)[0].run(NoBoard()).terms["far"]
    trainer, _ = make(precision="amp", epochs=range(30), policy="exponential")
    last = trainer.run(NoBoard()).terms["far"]
    assert last < first / 4


def test_too_few_samples_for_a_batch_are_an_error(make):
    with pytest.raises(
        ReenactError, match="an epoch has 1 samples, not enough for one batch of 2; raise num_repeats"
    ):
        make(Points(length=1))[0].run(NoBoard())


def test_there_must_be_something_to_resume(make):
    with pytest.raises(ModelError, match=r"latest_state\.pth: is no file, so there is nothing to resume"):
        make()[0].resume()


def test_a_state_of_other_networks_is_refused(make, tmp_path):
    make(steps=1)[0].run(NoBoard())
    other = Toy()
    other.networks["line"] = nn.Linear(7, 1)
    with pytest.raises(ModelError, match=r"latest_state\.pth: does not fit these settings .*size mismatch"):
        make(task=other)[0].resume()


def test_a_damaged_state_is_refused(make, tmp_path):
    make(steps=1)[0].run(NoBoard())
    path = tmp_path / "out" / LATEST_STATE
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match=r"latest_state\.pth: (damaged|cannot be read)"):
        make()[0].resume()
