"""Losses against values made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from train.losses import heatmap_loss, tag_losses


def test_heatmap_loss_is_the_mean_square_over_all_cells():
    maps, targets = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.0, 0.0], [0.0, 2.0]]]])
    assert heatmap_loss(maps, targets, torch.ones(1, 1, 2, 2)).item() == 1.0


def test_masked_cells_do_not_count():
    maps, targets = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert heatmap_loss(maps, targets, mask).item() == 0.25


def test_foreground_weighs_more():
    maps, targets = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    mask = torch.ones_like(maps)
    assert heatmap_loss(maps, targets, mask, foreground=9).item() == pytest.approx(
        10 * heatmap_loss(maps, targets, mask).item()
    )


def tags_of(values):
    """One picture, one joint a channel; person p has joint k at cell p. values: (P, K)."""
    values = torch.tensor(values, dtype=torch.float32)
    people, joints = values.shape
    tags = values.T.reshape(1, joints, 1, people).clone().requires_grad_()
    cells = torch.arange(people)[:, None].expand(people, joints)[None].clone()
    return tags, cells


def test_pull_is_the_spread_of_a_persons_tags():
    tags, cells = tags_of([[1.0, 3.0], [5.0, 5.0]])
    pull, push = tag_losses(tags, cells)
    assert pull.item() == pytest.approx((1.0 + 0.0) / 2)
    assert push.item() == pytest.approx(math.exp(-(3.0**2) / 2))  # means 2 and 5


def test_equal_tags_are_pushed_most_and_without_a_direction():
    tags, cells = tags_of([[1.0], [1.0]])
    pull, push = tag_losses(tags, cells)
    assert (pull.item(), push.item()) == (0.0, 1.0)
    push.backward()
    assert not tags.grad.any()  # the saddle


def test_push_drives_tags_apart_and_pull_together():
    tags, cells = tags_of([[0.0, 0.4], [1.0, 1.0]])
    pull, push = tag_losses(tags, cells)
    (towards,) = torch.autograd.grad(pull, tags, retain_graph=True)
    assert towards[0, 0, 0, 0] < 0 < towards[0, 1, 0, 0]  # a step against it closes the gap of the first person
    (apart,) = torch.autograd.grad(push, tags)
    assert (apart[0, :, 0, 0] > 0).all() and (apart[0, :, 0, 1] < 0).all()


def test_unlabelled_joints_and_absent_people_do_not_count():
    tags, cells = tags_of([[1.0, 9.0], [4.0, 4.0], [100.0, 100.0]])
    cells[0, 0, 1] = -1
    cells[0, 2] = -1
    pull, push = tag_losses(tags, cells)
    assert pull.item() == 0
    assert push.item() == pytest.approx(math.exp(-(3.0**2) / 2))


def test_pictures_with_one_person_or_none_have_no_push():
    tags, cells = tags_of([[1.0, 2.0], [0.0, 0.0]])
    cells[0, 1] = -1
    assert tag_losses(tags, cells)[1].item() == 0
    pull, push = tag_losses(tags, torch.full_like(cells, -1))
    assert (pull.item(), push.item()) == (0, 0)
