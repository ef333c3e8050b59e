"""A bundle of DECA at run time: what of it may be computed in half precision."""

import json
import shutil

import numpy as np
import pytest
from reenact.errors import BundleError
from reenact.runtime.backends import openvino
from reenact.runtime.systems.deca.model import Deca
from reenact.runtime.systems.protocol import SystemSettings
from reenact.runtime.tracking.flame_crop import FaceSquare
from reenact.runtime.tracking.flame_fit import View


def test_only_the_encoder_is_computed_in_half_precision(deca_export):
    if openvino.best_precision() != "bf16":
        pytest.skip("this CPU has no bfloat16")
    view = View(np.full((3, 224, 224), 0.5, np.float32), FaceSquare(100, 90, 120).to_crop())
    with Deca(SystemSettings(deca_export.folder, "openvino", "bf16")) as deca:
        (fit,) = deca.fit([view])
        detail = deca.detail_codes([view])[0]
        person = deca.person(fit.shape)
        head = deca.head(person, fit.exp, fit.pose, fit.cam)
        deca.points(person, fit.exp, fit.pose)
        deca.wrinkles(head, fit.exp, fit.pose, detail)
        found = {name: engine.precision for name, engine in deca._engines.items()}
    assert found.pop("encode") == "bf16"
    assert set(found.values()) == {"fp32"}
    assert found.keys() >= {"encode_detail", "identity", "decode", "points", "detail"}


def test_a_bundle_that_does_not_say_what_stays_whole_is_refused(deca_export, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(deca_export.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for graph in manifest["graphs"].values():
        del graph["whole"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"is not marked as whole.*export the bundle again"):
        Deca(SystemSettings(folder, "cpu", "fp32"))
