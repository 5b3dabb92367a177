"""Pruning: the least important channels are removed, the rest is fitted, and distillation reduces the error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from export.movenet import MoveNet
from train.prune import distil, fit_subset, prune

SMALL = [(16, 40, 2), (16, 40, 1), (16, 48, 2), (16, 48, 1), (16, 48, 1), (16, 96, 2), (16, 96, 1), (16, 96, 1)]
SMALL += [(16, 96, 1), (24, 32, 2), (24, 32, 1)]


def small_movenet() -> MoveNet:
    """Random weights, large enough that the deepest features differ between pictures."""
    torch.manual_seed(0)
    model = MoveNet(17, SMALL, 24).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return model


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_features_that_matter_are_kept():
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (400, 30))
    used = [3, 7, 12, 20, 29]
    weights = rng.normal(0, 1, (5, 4))
    targets = features[:, used] @ weights + 2.0
    kept, fitted, bias = fit_subset(features, targets, 5)
    assert kept.tolist() == used
    np.testing.assert_allclose(fitted, weights.T, atol=1e-2)
    np.testing.assert_allclose(features[:, kept] @ fitted.T + bias, targets, atol=1e-2)


def test_a_copy_of_a_feature_is_the_first_to_go():
    rng = np.random.default_rng(1)
    features = rng.normal(0, 1, (500, 6))
    features[:, 4] = features[:, 1]
    kept, _, _ = fit_subset(features, features[:, :4] @ rng.normal(1, 0.1, (4, 3)), 4)
    assert len({1, 4} & set(kept.tolist())) == 1
    assert {0, 2, 3} < set(kept.tolist())


def test_keeping_every_channel_changes_nothing():
    published = small_movenet()
    model = prune(published, images(12), {9: 24, 10: 24}, 24)
    with torch.no_grad():
        for ours, theirs in zip(model(images()), published(images()), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02 * float(theirs.abs().max()))


def test_thinned_blocks_are_narrower_and_distillation_helps():
    published = small_movenet()
    model = prune(published, images(12), {9: 12, 10: 10}, 16)
    assert [model.blocks[i].expand.out_channels for i in (8, 9, 10)] == [16, 12, 10]  # type: ignore[union-attr]  # InvertedResiduals
    assert model.top.out_channels == 16
    with torch.no_grad():
        before = [(a - b).square().mean() for a, b in zip(model(images()), published(images()), strict=True)]
    losses: list[float] = []
    distil(model, published, (images() for _ in range(30)), 30, first=9, on_step=lambda _, loss: losses.append(loss))
    with torch.no_grad():
        after = [(a - b).square().mean() for a, b in zip(model(images()), published(images()), strict=True)]
    assert after[-1] < before[-1]
    assert losses[-1] < losses[0]
    assert before[2].item() == pytest.approx(0)  # nothing before the pruned blocks moved
    assert after[2].item() == pytest.approx(0)
    assert not model.training
