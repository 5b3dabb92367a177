"""Losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from train.losses import focal_loss, heatmap_loss, tag_losses


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


def test_focal_loss_is_the_cross_entropy_times_the_square_of_what_is_missing():
    maps, targets = torch.tensor([[[[0.25, 0.9]]]]), torch.tensor([[[[1.0, 0.0]]]])
    overlooked, ghost = 0.75**2 * -math.log(0.25), 0.9**2 * -math.log(0.1)
    assert focal_loss(maps, targets, torch.ones_like(maps)).item() == pytest.approx((overlooked + ghost) / 2)
    weighed = focal_loss(maps, targets, torch.tensor([[[[1.0, 0.0]]]]), foreground=9)
    assert weighed.item() == pytest.approx(10 * overlooked / 2)


def test_an_overlooked_joint_has_a_gradient_where_the_squared_error_has_none():
    logit = torch.tensor([[[[-8.0]]]], requires_grad=True)
    target = mask = torch.ones(1, 1, 1, 1)
    gradients = [
        torch.autograd.grad(loss(torch.sigmoid(logit), target, mask), logit)[0].item()
        for loss in (focal_loss, heatmap_loss)
    ]
    assert gradients[0] < -0.9 < -0.001 < gradients[1] < 0
    sure = torch.zeros(1, 1, 1, 1)
    assert math.isfinite(focal_loss(sure, target, mask).item())  # a probability of 0 is no infinite loss


def tags_of(values):
    """One picture with one joint per channel; person p has joint k at cell p. values: (P, K), or (P, K, D)."""
    values = torch.tensor(values, dtype=torch.float32)
    people, joints = values.shape[:2]
    tags = values.reshape(people, joints, -1).permute(2, 1, 0).reshape(1, -1, 1, people).clone().requires_grad_()
    cells = torch.arange(people)[:, None].expand(people, joints)[None].clone()
    return tags, cells


def test_pull_is_the_spread_of_a_persons_tags():
    tags, cells = tags_of([[1.0, 3.0], [5.0, 5.0]])
    pull, push = tag_losses(tags, cells)
    assert pull.item() == pytest.approx((1.0 + 0.0) / 2)
    assert push.item() == pytest.approx(math.exp(-(3.0**2) / 2))  # means 2 and 5


def test_tags_of_two_numbers_are_apart_as_points_are():
    tags, cells = tags_of([[[0.0, 0.0], [6.0, 8.0]], [[3.0, 7.0], [3.0, 7.0]]])
    pull, push = tag_losses(tags, cells)
    assert pull.item() == pytest.approx((5.0**2 + 0.0) / 2)  # joints 5 from their middle (3, 4), and at it
    assert push.item() == pytest.approx(math.exp(-(3.0**2) / 2))  # middles (3, 4) and (3, 7)


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
