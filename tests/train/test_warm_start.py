"""Initialisation of tiny: MoveNet's weights from its file, and fitted tags."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import ModelError
from export.movenet import PUBLISHED, Separable
from export.tiny import TAG_SCALE, build_tiny
from tests.train import drawing, movenet
from train.pictures import CocoPictures
from train.warm_start import fit_tags, load_movenet, read_graph_weights


@pytest.mark.parametrize("half", [True, False])
def test_movenets_layers_are_found(tmp_path, half):
    path = movenet.write(tmp_path / "model.json", half=half)
    arrays = read_graph_weights(path)
    assert "P/shape" not in arrays  # a whole number, no weight
    model = load_movenet(path)
    np.testing.assert_array_equal(
        model.stem.weight.detach().permute(2, 3, 1, 0), arrays["P/model_1/model/Conv1/Conv2D_weights"]
    )
    block = model.blocks[12].depthwise
    assert isinstance(block, nn.Conv2d)
    np.testing.assert_array_equal(
        block.weight.detach().permute(2, 3, 0, 1), arrays["P/model_1/model/block_13_depthwise/depthwise_weights"]
    )
    assert model.lateral4.bias is not None
    np.testing.assert_array_equal(model.lateral4.bias.detach(), arrays["P/model_1/conv2d_3/BiasAdd/ReadVariableOp"])
    assert isinstance(model.branch, Separable)
    parts = model(torch.zeros(1, 3, 64, 96))
    assert {name: tuple(part.shape[1:]) for name, part in parts._asdict().items()} == {
        "logits": (17, 16, 24),
        "features": (24, 16, 24),
        "detail": (PUBLISHED[1][1], 16, 24),
        "middle": (PUBLISHED[4][1], 8, 12),
        "context": (64, 4, 6),
    }


def test_another_graph_is_refused(tmp_path):
    path = movenet.write(tmp_path / "model.json", without="conv2d_2/BiasAdd")
    with pytest.raises(ModelError, match=r"model\.json does not hold MoveNet MultiPose.*0 tensors are named like"):
        load_movenet(path)
    (tmp_path / "2.bin").unlink()
    with pytest.raises(ModelError, match=r"model\.json.*No such file"):
        load_movenet(path)


def test_fitted_tags_tell_people_apart(tmp_path):
    """Tested on the pictures of the fit, with features of random layers."""
    torch.manual_seed(0)
    model = build_tiny(17)
    pictures = CocoPictures(drawing.write(tmp_path), tmp_path)
    fit_tags(model, pictures, drawing.SIDE, range(4))
    image, labels = pictures.read(0)
    tensor = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        tags = model(tensor)[0][0, 17:].numpy()
    joints = np.arange(17)
    left, right = (tags[joints, *(person[:, 1::-1] // 4).astype(int).T] for person in labels.keypoints)
    apart = (labels.keypoints[1, :, :2].mean(0) - labels.keypoints[0, :, :2].mean(0)) @ TAG_SCALE
    assert np.median(right) - np.median(left) == pytest.approx(apart, abs=0.5)


def test_a_tag_is_the_place_where_nothing_else_is_known():
    model = build_tiny(17).eval()
    assert model.tags.bias is not None
    with torch.no_grad():
        for parameter in (*model.final_layers.parameters(), *model.tags.parameters(), *model.more_tags.parameters()):
            parameter.zero_()
        model.tags.bias[:] = 8 * sum(TAG_SCALE)
        tags = model(torch.zeros(1, 3, 64, 128))[0][0, 17]
    expected = TAG_SCALE[0] * (4 * 20 + 2) + TAG_SCALE[1] * (4 * 9 + 2)  # the middle of cell (20, 9), input pixels
    assert tags[9, 20].item() == pytest.approx(expected, rel=1e-5)
    assert tags[9, 0] == tags[9, 1]  # within half a coarse cell of the border the interpolated values stand still
