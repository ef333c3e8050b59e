"""What the tests of the export share: few threads, and networks whose every number matters."""

from collections.abc import Callable, Iterator

import pytest
import torch
from reenact.reference.fill import Rules, fill
from torch import nn


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two would wait for each other on a busy machine
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def stirred() -> Callable[[nn.Module], nn.Module]:
    """Fills a module by rule, running statistics and affine parameters too; in float64 and eval mode."""

    def make(module: nn.Module) -> nn.Module:
        fill(module, Rules(salt=3))
        return module.double().eval().requires_grad_(False)

    return make
