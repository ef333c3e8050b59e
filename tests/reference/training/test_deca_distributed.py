"""Two processes train DECA's stages with a batch each, and keep the same weights."""

import os
import subprocess
import sys

import pytest
import torch

from . import faces

SCRIPT = """
import sys
from pathlib import Path

import torch
from reenact.reference.training.board import NoBoard
from reenact.reference.training.deca import Helpers, make_job
from reenact.reference.training.deca_settings import Settings
from reenact.reference.training.distributed import place
from reenact.reference.training.loop import Options, Trainer

torch.set_num_threads(1)
out = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])
import faces

with place("cpu") as here:
    for stage in ("coarse", "detail"):
        settings = Settings.of_stage(
            stage, out / stage / str(here.rank), (out / "photos",), batch_size=1, photos=2, workers=0,
            start=out / "unread", device="cpu",
        )
        helpers = Helpers(faces.stand_in_face(), faces.LightLook(maps=False), faces.LightLook(maps=True))
        job = make_job(settings, helpers, faces.light_networks(), say=lambda line: None)
        Trainer(job, here, Options(steps=2), lambda line: None).run(NoBoard())
        weights = [p.detach() for net in job.task.networks.values() for p in net.parameters()]
        torch.save(weights, out / f"{stage}_{here.rank}.pt")
"""


@pytest.mark.slow
def test_processes_keep_the_same_weights_and_the_first_writes(request, tmp_path):
    if "slow" not in request.config.getoption("markexpr"):
        pytest.skip("takes a minute; run with -m slow")
    faces.write_set(
        tmp_path / "photos", faces.stand_in_face(), {"anna": [{}, {"exp": [1.0]}], "bert": [{}, {}]}
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(tmp_path / "script.py"), str(tmp_path), os.fspath(faces.FOLDER)],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    begun = [p.detach() for network in faces.light_networks().values() for p in network.parameters()]
    for stage in ("coarse", "detail"):
        first, second = (torch.load(tmp_path / f"{stage}_{rank}.pt", weights_only=True) for rank in (0, 1))
        assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
        assert not all(torch.equal(*pair) for pair in zip(first, begun, strict=True))
        assert (tmp_path / stage / "0/deca_model.tar").is_file()
        assert not (tmp_path / stage / "1").exists()
