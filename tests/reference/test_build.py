"""Networks are found by the names of their golden numbers."""

import pytest
from reenact.errors import ReenactError
from reenact.reference import build, names, settings_of


def test_names_list_every_network():
    assert {"face2face_rho/discriminator", "face2face_rho/motion_net", "face2face_rho/rendering_net"} <= set(
        names()
    )


@pytest.mark.parametrize("name", ["face2face_rho/generator", "nobody/net", "parts/net", "", "os/net", "../x"])
def test_an_unknown_name_lists_those_there_are(name):
    with pytest.raises(ReenactError, match="face2face_rho/motion_net, face2face_rho/rendering_net"):
        build(name)


def test_an_unknown_setting_is_named():
    with pytest.raises(ReenactError, match="motion_net has no setting depth; it takes mn_ngf"):
        build("face2face_rho/motion_net", depth=3)


def test_a_networks_settings_are_picked_from_a_systems():
    config = {"mn_ngf": 8, "headpose_dims": 6, "name": "x"}
    assert settings_of("face2face_rho/motion_net", config) == {"mn_ngf": 8}
