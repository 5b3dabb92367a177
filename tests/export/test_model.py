"""The network against the authors': names, shapes, and numbers they recorded; and its switches."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from export.complexity import measure
from export.head import Aggregated, HigherHead
from export.hrnet import HigherHRNet
from export.model import ABLATION, build_model
from export.movenet import upsample
from export.over_movenet import Smoothing
from export.small import Small
from export.tiny import build_tiny
from tests.export.networks import drawn, recipe

RECORDED = {"w32": ("w32", 17), "w48": ("w48", 17), "w32_crowdpose": ("w32", 14)}


@pytest.mark.parametrize("case", RECORDED)
def test_names_and_shapes_are_the_authors(case, golden_dir):
    expected = json.loads((golden_dir / "state_dict_shapes.json").read_text())[case]
    name, joints = RECORDED[case]
    with torch.device("meta"):
        model = build_model(name, joints=joints)
    assert len(expected) == 1810
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected


@pytest.mark.parametrize("case", RECORDED)
def test_outputs_are_the_authors(case, golden_dir, request):
    name, joints = RECORDED[case]
    model = request.getfixturevalue("w32") if case == "w32" else drawn(build_model(name, joints=joints))
    with torch.inference_mode():
        outputs = model(torch.from_numpy(recipe().image(128, 192)))
    recorded = np.load(golden_dir / f"forward_{case}_128x192.npz")
    for key, output in zip(("quarter", "half"), outputs, strict=True):
        np.testing.assert_allclose(output.numpy(), recorded[key], atol=1e-3, rtol=0)  # worst seen: 7e-5


@pytest.mark.parametrize(("name", "parameters"), [("w32", 28_645_331), ("w48", 63_827_139)])
def test_size_is_the_papers(name, parameters):
    assert measure(name, (64, 64))[0] == parameters


def test_w32_computes_92_gflop_at_512x512():
    assert 2 * measure("w32", (512, 512))[1] == pytest.approx(92.4e9, rel=1e-3)


def test_multiply_adds_of_known_layers():
    # By hand, for 64x64: the stem's first convolution has 32*32 outputs of 64 channels, 3*3*3 inputs each.
    with_more = measure("w32", (64, 64), residual_blocks=1)[1]
    without = measure("w32", (64, 64), residual_blocks=0)[1]
    assert with_more - without == 2 * (32 * 32) * 32 * (3 * 3 * 32)


@pytest.mark.parametrize("row", ABLATION)
def test_every_row_of_the_ablation_runs(row):
    switches = ABLATION[row]
    model = HigherHRNet(4, 17, **switches).eval()
    with torch.inference_mode():
        outputs = model(torch.zeros(2, 3, 64, 128))
        heatmaps, tags = Aggregated(model)(torch.zeros(2, 3, 64, 128))
    assert [tuple(output.shape) for output in outputs] == [(2, 34, 16, 32), (2, 17, 32, 64)][: len(outputs)]
    assert len(outputs) == 1 + switches.get("deconvolutions", 1)
    assert tuple(heatmaps.shape) == (2, 17, 32, 64)
    assert tuple(tags.shape) == (2, 17, 16, 32)


def test_narrow_learns_its_heatmaps_and_tags_and_starts_with_the_place_as_tag():
    model = build_model("narrow", joints=14).eval()
    head = sum(value.numel() for name, value in model.named_parameters() if not name.startswith("backbone."))
    assert head < 0.15e6
    with torch.inference_mode():
        quarter, half = model(torch.randn(2, 3, 64, 128))
    assert (tuple(quarter.shape), tuple(half.shape)) == ((2, 28, 16, 32), (2, 14, 32, 64))
    assert not quarter[:, :14].any() and not half.any()
    torch.testing.assert_close(quarter[:, 14:], quarter[:1, 14:15].expand(2, 14, -1, -1))
    tags = quarter[0, 14]
    torch.testing.assert_close(tags[:, 1:] - tags[:, :-1], torch.full((16, 31), 4 / 30), atol=1e-5, rtol=0)
    torch.testing.assert_close(tags[1:] - tags[:-1], torch.full((15, 32), 4 / 42), atol=1e-5, rtol=0)


def test_switches_change_the_layers_they_name():
    keys = {row: set(HigherHRNet(4, **switches).state_dict()) for row, switches in ABLATION.items()}
    baseline, deconvolution, concatenation, aggregation, blocks = keys.values()
    assert not any(key.startswith("deconv_layers") for key in baseline)
    assert baseline < deconvolution == concatenation == aggregation < blocks
    into = "deconv_layers.0.0.0.weight"
    assert HigherHRNet(4, concatenate=False).state_dict()[into].shape[0] == 4
    assert HigherHRNet(4).state_dict()[into].shape[0] == 4 + 34


def test_aggregation_averages_what_the_heads_give():
    outputs = tuple(torch.randn(1, c, s, 2 * s) for c, s in ((34, 16), (17, 32), (17, 64)))
    up = F.interpolate(outputs[0][:, :17], size=(32, 64), mode="bilinear", align_corners=False)
    down = outputs[2].reshape(1, 17, 32, 2, 64, 2).mean((3, 5))

    def aggregate(count, **switches):
        heatmaps, tags = Aggregated(Fixed(outputs[:count], **switches))(torch.zeros(1))
        assert torch.equal(tags, outputs[0][:, 17:])
        return heatmaps

    torch.testing.assert_close(aggregate(1), up)
    torch.testing.assert_close(aggregate(2), (up + outputs[1]) / 2)
    torch.testing.assert_close(aggregate(3), (up + outputs[1] + down) / 3)
    torch.testing.assert_close(aggregate(2, aggregate=False), outputs[1])
    torch.testing.assert_close(aggregate(3, aggregate=False), down)


def test_aggregation_is_in_float32_for_a_half_network():
    outputs = tuple(torch.randn(1, c, s, s).half() for c, s in ((34, 16), (17, 32)))
    heatmaps, tags = Aggregated(Fixed(outputs))(torch.zeros(1))
    assert heatmaps.dtype == tags.dtype == torch.float32


def test_tiny_has_the_same_two_outputs():
    model = build_model("tiny", joints=14).eval()
    with torch.inference_mode():
        quarter, half = model(torch.zeros(1, 3, 64, 128))
    assert (tuple(quarter.shape), tuple(half.shape)) == ((1, 28, 16, 32), (1, 14, 32, 64))


def test_small_gives_heatmaps_and_tags_of_two_numbers():
    model = drawn(Small())
    model.contrast.copy_(torch.tensor([1.0, 0.0, 0.5]))
    image = torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        heatmaps, tags = Aggregated(model)(image)
    assert (tuple(heatmaps.shape), tuple(tags.shape)) == ((1, 17, 32, 64), (1, 34, 16, 32))
    assert heatmaps.std() > 0


def test_smalls_tag_is_the_place_where_nothing_else_is_known():
    model = Small(14).eval()
    with torch.inference_mode():
        quarter, half = model(torch.zeros(1, 3, 64, 128))
    assert (tuple(quarter.shape), tuple(half.shape)) == ((1, 42, 16, 32), (1, 14, 32, 64))
    across, down = quarter[0, 14:28], quarter[0, 28:]
    scale = model.tag_scale.tolist()
    for joint in (0, 13):
        assert across[joint, 9, 20].item() == pytest.approx(scale[0] * (4 * 20 + 2))
        assert down[joint, 9, 20].item() == pytest.approx(scale[1] * (4 * 9 + 2))


def test_smalls_head_starts_as_what_the_backbone_gives():
    model = Small().eval()
    torch.nn.init.normal_(model.backbone.logits.weight)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        quarter, half = model(image)
        heatmaps = torch.sigmoid(model.backbone(image).logits)
    torch.testing.assert_close(quarter[:, :17], heatmaps)
    torch.testing.assert_close(half, upsample(heatmaps, 2))


@pytest.mark.parametrize("build", [build_tiny, Small])
def test_the_bundled_aggregate_in_fewer_steps_to_the_same_maps(build):
    """Smoothed before the floor is taken from them: at the border the order matters."""
    model = drawn(build())
    model.contrast.copy_(torch.tensor([1.0, 0.0, 1.0]))
    image = torch.randn(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain, tags = HigherHead.aggregated(model, image)
        wanted = model.smoothing(plain)
        model.contrast.copy_(torch.tensor([1.15, 0.15, 0.6]))
        ours, scaled_tags = model.aggregated(image)
    torch.testing.assert_close(ours, 1.15 * (wanted - 0.15), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scaled_tags, 0.6 * tags, atol=1e-5, rtol=1e-5)


def test_smoothing_is_a_gaussian():
    maps = np.random.default_rng(0).random((3, 40, 50), np.float32)
    sigmas = [2.0, 1.0, 0.5]
    kernels = [cv2.getGaussianKernel(9, sigma, cv2.CV_32F) for sigma in sigmas]
    wanted = [
        cv2.sepFilter2D(one, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
        for one, kernel in zip(maps, kernels, strict=True)
    ]
    got = Smoothing(sigmas)(torch.from_numpy(maps)[None])[0].numpy()
    np.testing.assert_allclose(got, np.stack(wanted), atol=1e-6)


def test_smoothing_finds_the_middle_of_a_noisy_flat_peak():
    """Sigma of the peak 6 cells, as that of a large person's hip; noise of 0.02."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    peak = 0.8 * np.exp(-((x - 24) ** 2 + (y - 24) ** 2) / (2 * 6.0**2))
    smoothing = Smoothing([2.0])
    off = np.zeros((2, 100))
    for trial in range(100):
        noisy = torch.from_numpy(peak + rng.normal(0, 0.02, peak.shape)).float()[None, None]
        for row, maps in enumerate((noisy, smoothing(noisy))):
            at = np.unravel_index(int(maps.argmax()), peak.shape)
            off[row, trial] = np.hypot(at[0] - 24, at[1] - 24)
    assert off[1].mean() < 0.5 * off[0].mean()


@pytest.mark.parametrize(
    ("name", "switches", "message"),
    [
        ("w33", {}, "'w33'.*expected one of w32, w48, tiny, small, narrow"),
        ("w32", {"deconvolutions": 3}, "deconvolutions is 3"),
        ("w32", {"residual_blocks": -1}, "residual_blocks is -1"),
        ("w32", {"joints": 0}, "joints is 0"),
        ("tiny", {"deconvolutions": 2}, "tiny has no switches"),
        ("small", {"deconvolutions": 2}, "small has no switches"),
    ],
)
def test_a_model_that_cannot_be_built_is_one_clear_line(name, switches, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, **switches)


class Fixed(HigherHead):
    """A network whose outputs are given."""

    def __init__(self, outputs, **switches):
        super().__init__(4, **switches)
        self.outputs = outputs

    def forward(self, image):
        return self.outputs
