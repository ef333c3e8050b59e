"""What the tests of the reference networks share: golden files, and few threads."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from reenact.reference import build
from reenact.reference.fill import Rules, fill
from torch import nn

TESTS = Path(__file__).resolve().parents[1]
GAINS = {
    "rendering_net": {
        r"\.conv\.(0|3|6)\.weight$": 0.8,
        r"headpose_encoder\.embedding_module[12]\.0\.weight$": 4.0,
    },
    "motion_net": {
        r"\.conv2\.weight$": 0.3,
        r"^model[12]_3\.weight$": 0.1,
        r"^f1_motion\.weight$": 0.5,
    },
    "discriminator": {},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two would wait for each other on a busy machine
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The golden files of the repository, a folder a system."""
    return TESTS / "goldens"


@pytest.fixture(scope="session")
def licensed_goldens() -> Path:
    """Golden files that may not lie in the repository, a folder a system; skipped where absent."""
    folder = TESTS / "../../shared/goldens"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/goldens with licensed golden files is absent")
    return folder.resolve()


@pytest.fixture(scope="session")
def filled() -> Callable[[str], nn.Module]:
    """Makes a network of Face2Face-rho with the weights of its golden."""

    def make(name: str) -> nn.Module:
        network = build(f"face2face_rho/{name}")
        fill(network, Rules(gain=GAINS[name]))
        return network.requires_grad_(False)

    return make


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where whatever a pickle does shows, as exploits of tests do something in the current folder."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []
