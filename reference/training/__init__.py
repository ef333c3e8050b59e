"""Training of the reference networks: `train` from a settings file, and the loop that any system can use.

The loop (`loop.py`) trains a `Task`: named networks, their optimizers and the phases of a step. A system is one
module here that makes a task and its samples from its settings file.
"""

from .loop import Trained
from .run import SYSTEMS, train

__all__ = ["SYSTEMS", "Trained", "train"]
