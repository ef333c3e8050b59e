"""DECA's encoders in their true size: exported, opened by the runtime, they see what the reference sees."""

import numpy as np
import pytest
from reenact.runtime import assets
from reenact.runtime.media.images import read_image
from reenact.runtime.systems.deca.model import Deca
from reenact.runtime.systems.protocol import SystemSettings
from reenact.runtime.tracking.flame_crop import FaceSquare
from reenact.runtime.tracking.flame_fit import view_of

torch = pytest.importorskip("torch", reason="the reference is in torch, which is not installed")
pytest.importorskip("onnxscript", reason="graphs are exported with onnxscript, which is not installed")


@pytest.mark.slow
def test_the_whole_encoders_are_exported_and_see_what_the_reference_sees(request, tmp_path):
    if "slow" not in request.config.getoption("markexpr"):
        pytest.skip("takes minutes; run with -m slow")
    from reenact.export.checkpoints import Checkpoint
    from reenact.export.deca_bundle import export_files
    from reenact.reference import build
    from reenact.reference.deca import Encoder, encode
    from reenact.reference.fill import Rules, fill

    networks = {name: build(f"deca/{name}").eval() for name in ("e_flame", "e_detail", "d_detail")}
    calm = {r"bn3\.weight": 0.25}  # else the variance doubles with every block
    fill(
        networks["e_flame"],
        Rules(gain=calm | {r"layers\.2\.weight": 0.02}, add={"layers.2.bias": {"206": 6.5}}),
    )
    fill(networks["e_detail"], Rules(gain=calm))
    fill(networks["d_detail"], Rules())
    e_flame, e_detail = (networks[name] for name in ("e_flame", "e_detail"))
    assert isinstance(e_flame, Encoder)
    assert sum(values.numel() for values in e_flame.encoder.parameters()) == 23_508_032  # ResNet-50's
    files = request.getfixturevalue("deca_export").files
    checkpoint = Checkpoint("deca", tmp_path, "made for this test", networks)
    bundle, checked = export_files(checkpoint, files, tmp_path / "bundle", "made for this test")
    compared = {(check.graph, check.inputs) for check in checked}
    assert compared >= {
        (graph, seen) for graph in ("encode", "encode_detail") for seen in ("random", "portrait")
    }

    photos = [read_image(assets.portrait(name)) for name in ("eileen_collins", "grace_hopper")]
    views = [view_of(photo, FaceSquare(photo.shape[1] / 2, 200, 300)) for photo in photos]
    with torch.no_grad():
        crops = torch.from_numpy(np.stack([view.crop for view in views]))
        codes, details = encode(e_flame, e_detail, crops)
    with Deca(SystemSettings(bundle.folder, backend="cpu", precision="fp32")) as deca:
        fits, seen = deca.fit(views), deca.detail_codes(views)
    for name in ("shape", "tex", "exp", "pose", "cam", "light"):
        wanted = getattr(codes, name).numpy()
        found = np.stack([getattr(fit, name) for fit in fits])
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max(), name
    assert np.abs(seen - details.numpy()).max() < 1e-4 * float(details.abs().max())
    assert np.abs(fits[0].exp - fits[1].exp).max() > 1e-3
