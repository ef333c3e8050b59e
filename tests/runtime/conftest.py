"""A tracker and a system for live sessions read off the colours of pictures, a clock that stands, small .tflite files.

A driving picture of one colour says: red, whether there is a face (0 none); green, its yaw; blue, how open its mouth
is. A photo's red is that of the pictures made of it; their green tells the yaw that it was moved by.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import pytest
import tflite
from reenact.errors import FaceNotFoundError
from reenact.runtime.tracking.canonical import load
from reenact.runtime.tracking.face import HeadPose, euler_angles, rotation_matrix
from reenact.runtime.tracking.geometry import measure

STILL = 128  # green of yaw 0
RADIANS = 0.005  # yaw of one step of green


def made_face(yaw=0.0, mouth=0.0, width=64, height=48):
    """A face in the middle of a picture, a third of its width wide."""
    canonical = load()
    points = np.zeros((478, 3), np.float32)
    points[:468] = canonical.neutral + mouth * canonical.shape("jawOpen")
    points[468:473], points[473:] = points[[33, 133]].mean(axis=0), points[[263, 362]].mean(axis=0)
    middle = np.array([(width - 1) / 2, (height - 1) / 2, 0], np.float32)
    return measure(HeadPose(rotation_matrix(yaw, 0, 0), width / 45, middle).project(points), 1.0)


class ColourTracker:
    """`before_each` is called before each look, with the picture."""

    def __init__(self, before_each=lambda image: None):
        self.before_each, self.resets, self.looks, self.widths = before_each, 0, 0, []
        self.scales = []
        self.siblings = []

    def sibling(self, *, smooth):
        assert not smooth
        self.siblings.append(ColourTracker(self.before_each))
        return self.siblings[-1]

    def track(self, image, time):
        self.looks += 1
        self.before_each(image)
        self.widths.append(image.shape[1])
        return self._face(image)

    def find_faces(self, image):
        face = self._face(image)
        return [] if face is None else [face]

    def reset(self):
        self.resets += 1

    def rescale(self, scale):
        self.scales.append(scale)

    def close(self):
        pass

    @staticmethod
    def _face(image):
        red, green, blue = (int(channel) for channel in image[0, 0])
        if red == 0:
            return None
        height, width = image.shape[:2]
        return made_face((green - STILL) * RADIANS, blue / 255, width, height)


@dataclass(frozen=True, eq=False)
class ColourPortrait:
    image: np.ndarray
    face: object


class ColourAnimator:
    name = "colours"

    def __init__(self, before_each=lambda portrait: None, before_register=lambda image: None):
        self.before_each, self.before_register, self.registered = before_each, before_register, []

    def register(self, image, face):
        self.before_register(image)
        self.registered.append(image.shape[1])
        return ColourPortrait(image, face)

    def animate(self, portrait, observation):
        self.before_each(portrait)
        yaw = euler_angles(observation.motion.rotation)[0]
        result = portrait.image.copy()
        result[..., 1] = round(STILL + yaw / RADIANS)
        return result

    def close(self):
        pass


def colour(red=200, green=STILL, blue=0, width=64, height=48):
    """A picture of one colour."""
    return np.full((height, width, 3), (red, green, blue), np.uint8)


@pytest.fixture
def colours():
    """Everything above by name, and `engines(...)` that a session can be made with."""

    def engines(**hooks):
        tracker = ColourTracker(hooks.pop("before_track", lambda image: None))
        return SimpleNamespace(tracker=tracker, animator=ColourAnimator(**hooks))

    return SimpleNamespace(
        engines=engines,
        picture=colour,
        face=made_face,
        tracker=ColourTracker,
        animator=ColourAnimator,
        no_face=FaceNotFoundError,
        still=STILL,
        radians=RADIANS,
    )


@pytest.fixture
def clock():
    """A clock that only moves when told: `clock()` reads it, `clock.pass_(seconds)` and `clock.sleep` move it."""
    return StandingClock()


class StandingClock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds

    sleep = pass_


@pytest.fixture(scope="session")
def tflite_network() -> Callable[..., bytes]:
    """Makes the bytes of a .tflite file.

    `tensors` are rows of name, shape and an array or None; `operators` rows of kind, input numbers, output
    number, name of the options' table and its fields. Tensor 0 is the input, the last one the output.
    """

    def make(tensors: list[Any], operators: list[Any]) -> bytes:
        return _TfliteWriter().write(
            [SimpleNamespace(name=n, shape=s, value=v) for n, s, v in tensors], operators
        )

    return make


class _TfliteWriter:
    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def write(self, tensors: list[Any], operators: list[Any]) -> bytes:
        b = self.builder
        kinds = sorted({row[0] for row in operators})
        codes = [self._code(getattr(tflite.BuiltinOperator, kind)) for kind in kinds]
        buffers = [self._table("Buffer")]
        made = []
        for tensor in tensors:
            number = 0
            if tensor.value is not None:
                number = len(buffers)
                content = b.CreateByteVector(np.ascontiguousarray(tensor.value).tobytes())
                buffers.append(self._table("Buffer", Data=content))
            made.append(self._tensor(tensor, number))
        steps = [self._operator(kinds, *row) for row in operators]
        graph = self._table(
            "SubGraph",
            Tensors=self._offsets(made),
            Inputs=b.CreateNumpyVector(np.array([0], np.int32)),
            Outputs=b.CreateNumpyVector(np.array([len(tensors) - 1], np.int32)),
            Operators=self._offsets(steps),
        )
        model = self._table(
            "Model",
            Version=3,
            OperatorCodes=self._offsets(codes),
            Subgraphs=self._offsets([graph]),
            Buffers=self._offsets(buffers),
        )
        b.Finish(model, file_identifier=b"TFL3")
        return bytes(b.Output())

    def _tensor(self, tensor: Any, number: int) -> int:
        types = {np.dtype(np.int32): tflite.TensorType.INT32, np.dtype(np.float16): tflite.TensorType.FLOAT16}
        dtype = np.dtype(np.float32) if tensor.value is None else tensor.value.dtype
        return self._table(
            "Tensor",
            Shape=self.builder.CreateNumpyVector(np.array(tensor.shape, np.int32)),
            Type=types.get(dtype, tflite.TensorType.FLOAT32),
            Buffer=number,
            Name=self.builder.CreateString(tensor.name),
        )

    def _operator(
        self,
        kinds: list[str],
        kind: str,
        inputs: list[int],
        output: int,
        options: str,
        fields: dict[str, int],
    ) -> int:
        chosen = {}
        if options:
            table = self._table(options, **fields)
            chosen = {"BuiltinOptionsType": getattr(tflite.BuiltinOptions, options), "BuiltinOptions": table}
        return self._table(
            "Operator",
            OpcodeIndex=kinds.index(kind),
            Inputs=self.builder.CreateNumpyVector(np.array(inputs, np.int32)),
            Outputs=self.builder.CreateNumpyVector(np.array([output], np.int32)),
            **chosen,
        )

    def _code(self, number: int) -> int:
        return self._table("OperatorCode", BuiltinCode=number, DeprecatedBuiltinCode=min(number, 127))

    def _offsets(self, offsets: list[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _table(self, name: str, **fields: int) -> int:
        getattr(tflite, f"{name}Start")(self.builder)
        for field, value in fields.items():
            getattr(tflite, f"{name}Add{field}")(self.builder, value)
        return int(getattr(tflite, f"{name}End")(self.builder))
