"""The tags of small: features are sampled as in the network, and the fitted tags separate people."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from export.small import Small
from tests.train import drawing
from train.pictures import CocoPictures
from train.tag_fit import Joints, fit_tags, losses, read_joints, sample


def test_features_are_interpolated_as_the_network_does():
    maps = np.random.default_rng(0).normal(0, 1, (3, 5, 7)).astype(np.float32)
    finer = F.interpolate(torch.from_numpy(maps)[None], scale_factor=4.0, mode="bilinear", align_corners=False)[
        0
    ].numpy()
    fine = np.array([(0, 0), (13, 9), (27, 19), (6, 2)])  # x, y
    got = sample(maps, (fine + 0.5) / 4 - 0.5)
    np.testing.assert_allclose(got, finer[:, fine[:, 1], fine[:, 0]].T, atol=1e-5)


def test_losses_are_distances_in_two_numbers():
    tags = torch.tensor([[0.0, 0.0], [6.0, 8.0], [3.0, 5.0], [3.0, 5.0], [3.0, 4.0]])
    person, picture = torch.tensor([4, 4, 7, 7, 9]), torch.tensor([1, 1, 1, 1, 2])
    pull, push = losses(tags, person, picture)
    assert pull.item() == pytest.approx((5 + 5 + 0 + 0 + 0) / 5, abs=0.07)
    assert push.item() == pytest.approx(2 * math.exp(-1 / (2 * 0.75**2)) / 3)  # the third is alone in its picture


def test_fitted_tags_tell_people_apart(tmp_path):
    """Tested on the pictures of the fit, with features of random layers."""
    torch.manual_seed(0)
    model = Small(17)
    pictures = CocoPictures(drawing.write(tmp_path), tmp_path)
    joints = read_joints(model, pictures, [0, 2] * 4)
    assert joints.features.shape[1] == 24 + 40 + 64
    assert set(joints.joint.tolist()) == set(range(17))
    assert len(set(joints.person.tolist())) == 16  # two a picture, each time a new one
    joints = joints._replace(picture=joints.person // 2)
    fit_tags(model, joints, epochs=60)
    image, labels = pictures.read(0)
    large = np.repeat(np.repeat(image[..., ::-1], 3, 0), 3, 1)
    tensor = torch.from_numpy(large.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        tags = model(tensor)[0][0, 17:].unflatten(0, (2, 17)).numpy()
    at = (3 * labels.keypoints[..., :2] / 4).astype(int)
    left, right = (tags[:, np.arange(17), place[:, 1], place[:, 0]].T for place in at)
    between = np.linalg.norm(left.mean(0) - right.mean(0))
    within = max(np.linalg.norm(tag - tag.mean(0), axis=1).mean() for tag in (left, right))
    assert between > 1
    assert within < 0.5 * between


def test_the_fit_is_what_the_network_then_gives():
    """For features of one cell per joint, the layers must give the fitted tags, with mean and spread folded in."""
    torch.manual_seed(1)
    model = Small(2)
    features = torch.randn(40, 128) * 0.1 + 5
    person, peak = torch.arange(40) // 4, torch.rand(40, 2) * 200
    middle = (torch.rand(10, 2) * 200)[person]
    features[:, :2] += (middle - peak) / 10  # the features contain the offset
    fit_tags(model, Joints(features, torch.arange(40) % 2, peak, middle, person, person), epochs=200)
    with torch.no_grad():
        fine, coarse = features[:, :64, None, None], features[:, 64:, None, None].expand(-1, -1, 1, 1)
        hidden = F.relu(model.tags.detail(fine) + model.tags.context(coarse))
        last = model.final_layers[0]
        assert isinstance(last, torch.nn.Conv2d)
        offset = last(hidden).view(40, 2, 2)[torch.arange(40), :, torch.arange(40) % 2]
    tags = peak * model.tag_scale.detach() + offset
    wanted = middle * model.tag_scale.detach()
    assert (tags - wanted).norm(dim=1).mean() < 0.35 * (wanted - wanted.mean(0)).norm(dim=1).mean()
