import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import DecodeOptions
from kernels.cpu import decode, decode_scales, warm_up
from kernels.cpu.decode import decode_plain
from kernels.cpu.maps import unmirror
from kernels.cpu.scales import _add_resized
from tests.reference import decode as reference
from tests.reference.drawn import KINDS, draw_maps
from tests.reference.golden import crowd_outputs

THREE = {"joint_order": (1, 0, 2), "flip_order": (0, 2, 1)}  # a skeleton small enough for many examples


def assert_same(got, want):
    """To the bit: host and reference do the same float32 operations in the same order."""
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


options_drawn = st.builds(
    DecodeOptions,
    max_people=st.sampled_from([1, 2, 5, 30]),
    threshold=st.sampled_from([0.0, 0.1, 0.3]),
    tag_threshold=st.sampled_from([0.5, 1.0, 3.0]),
    nms_size=st.sampled_from([1, 3, 5]),
    project=st.booleans(),
    adjust=st.booleans(),
    refine=st.booleans(),
    min_score=st.sampled_from([0.0, 0.1, 0.3]),
    min_joint=st.sampled_from([0.0, 0.2]),
    duplicate_oks=st.sampled_from([None, 0.3, 0.9]),
    joint_order=st.just(THREE["joint_order"]),
    flip_order=st.just(THREE["flip_order"]),
)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(0, 9999),
    st.integers(1, 2),
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    options_drawn,
)
def test_people_are_those_of_the_reference(kind, seed, T, hw, options):
    heatmaps, tags = draw_maps(kind, seed, T=T, hw=hw)
    assert_same(decode(heatmaps, tags, options), reference.decode(heatmaps, tags, options))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@settings(max_examples=80, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 9999), st.integers(1, 2), options_drawn)
def test_people_by_tags_of_two_numbers_are_those_of_the_reference(kind, seed, T, options):
    heatmaps, tags = draw_maps(kind, seed, T=T)
    tags = np.concatenate([tags, draw_maps(kind, seed + 1, T=T)[1]], 1)
    assert_same(decode(heatmaps, tags, options), reference.decode(heatmaps, tags, options))


@pytest.mark.parametrize("project", [False, True])
def test_two_numbers_group_as_the_tags_of_two_frames_do(project):
    """Who stands above somebody else has the same first number, and is told apart by the second."""
    options = DecodeOptions(project=project)
    heatmaps, tags = crowd_outputs(6, (128, 192))
    second = np.ascontiguousarray(tags[:, :, ::-1])
    twin = list(options.flip_for(17))
    mirrored = heatmaps[:, twin, :, ::-1], second[:, twin, :, ::-1]
    two_frames = np.concatenate([heatmaps, mirrored[0]]), np.concatenate([tags, mirrored[1]])
    two_numbers = np.concatenate([tags, second], 1)
    assert_same(decode(heatmaps, two_numbers, options), decode(*two_frames, options))
    by_second = decode(heatmaps, np.concatenate([tags * 0, tags], 1), options)
    np.testing.assert_allclose(by_second[0], decode(heatmaps, tags, options)[0], atol=1e-4)
    assert not np.allclose(by_second[0], decode(heatmaps, tags * 0, options)[0], atol=1)


@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("joints", [17, 14])
def test_whole_skeletons_are_those_of_the_reference(joints, T):
    for seed in range(5):
        maps = draw_maps("people", seed, T=T, K=joints, hw=(24, 32))
        keypoints, scores = decode(*maps)
        assert keypoints.shape[1:] == (joints, 3) and len(keypoints) == len(scores) > 0
        assert_same((keypoints, scores), reference.decode(*maps))


def test_the_filter_for_output_is_that_of_the_reference():
    options = DecodeOptions(min_score=0.2, min_joint=0.1, duplicate_oks=0.7)
    maps = draw_maps("people", 3, K=17, hw=(24, 32))
    everyone, filtered = decode(*maps), decode(*maps, options)
    assert 0 < len(filtered[0]) < len(everyone[0])
    assert_same(filtered, reference.decode(*maps, options))


def test_min_score_drops_before_refine_and_min_joint_hides_after():
    maps = draw_maps("people", 1, K=17, hw=(24, 32))
    keypoints, scores = decode(*maps)
    strong, strong_scores = decode(*maps, DecodeOptions(min_score=0.2, min_joint=0.3))
    np.testing.assert_array_equal(strong_scores, scores[scores >= np.float32(0.2)])
    kept = keypoints[scores >= np.float32(0.2)]
    hidden = kept[..., 2] < np.float32(0.3)
    assert hidden.any() and (strong[hidden] == 0).all()
    np.testing.assert_array_equal(strong[~hidden], kept[~hidden])


# An untrained network gives arbitrary maps; decoding a whole frame of them must neither crash nor take seconds.
UNTRAINED = {
    "constant": lambda rng: (np.full((17, 128, 192), 0.4), np.full((17, 64, 96), 0.7)),
    "zero": lambda rng: (np.zeros((17, 128, 192)), np.zeros((17, 64, 96))),
    "thousands of peaks": lambda rng: (rng.random((17, 128, 192)), rng.normal(0, 3, (17, 64, 96))),
    "thousands of peaks, equal tags": lambda rng: (rng.random((17, 128, 192)), np.zeros((17, 64, 96))),
    "tags not a number": lambda rng: (rng.random((17, 128, 192)), np.full((17, 64, 96), np.nan)),
    "tags infinite": lambda rng: (rng.random((17, 128, 192)), np.full((17, 64, 96), np.inf)),
    "tags far apart": lambda rng: (rng.random((17, 128, 192)), rng.normal(0, 1e6, (17, 64, 96))),
    "heat not a number": lambda rng: (np.full((17, 128, 192), np.nan), np.zeros((17, 64, 96))),
    "heat infinite": lambda rng: (np.full((17, 128, 192), np.inf), rng.normal(0, 1, (17, 64, 96))),
    "heat huge": lambda rng: (rng.normal(0, 1e30, (17, 128, 192)), rng.normal(0, 1, (17, 64, 96))),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("kind", UNTRAINED)
def test_maps_of_an_untrained_network_end_well(kind, T):
    halves = [UNTRAINED[kind](np.random.default_rng(seed)) for seed in range(T)]
    heatmaps, tags = (np.stack(maps).astype(np.float32) for maps in zip(*halves, strict=True))
    keypoints, scores = decode(heatmaps, tags, DecodeOptions(max_people=128))
    assert len(keypoints) == len(scores) <= 128
    assert (
        np.isfinite(keypoints[..., :2]).all() and (keypoints[..., 0] <= 384).all() and (keypoints[..., 1] <= 256).all()
    )
    if kind != "heat infinite":  # one peak a joint: as many people as their random tags make
        assert len(keypoints) == {"zero": 0, "heat not a number": 0, "constant": 1}.get(kind, 128)


def test_equal_tags_open_a_person_for_each_peak():
    heat, tags = np.zeros((1, 17, 32, 32), np.float32), np.zeros((1, 17, 16, 16), np.float32)
    for n, cell in enumerate([(4, 4), (4, 20), (20, 4)]):
        heat[0, 0, cell[0], cell[1]] = heat[0, 1, cell[0], cell[1]] = 0.9 - 0.1 * n
    keypoints, _ = decode(heat, tags, DecodeOptions(refine=False))
    assert (keypoints[:, 0, :2] // 2).tolist() == [[4, 4], [20, 4], [4, 20]]
    np.testing.assert_array_equal(keypoints[:, 0], keypoints[:, 1])  # equal costs: rows take columns in order


def test_a_single_joint_lies_where_it_was_drawn():
    heat, tags = np.zeros((1, 17, 32, 48), np.float32), np.zeros((1, 17, 16, 24), np.float32)
    heat[0, 0, 10, 30], heat[0, 0, 10, 31], heat[0, 0, 11, 30] = 1.0, 0.8, 0.2
    keypoints, scores = decode(heat, tags, DecodeOptions(project=False, refine=False))
    # cell (30, 10), a quarter to the right and, the row above being 0, a quarter down; a cell is two pixels wide
    assert keypoints[0, 0].tolist() == [61.5, 21.5, 1.0]
    assert scores[0] == np.float32(1 / 17) and not keypoints[0, 1:].any()
    plain, _ = decode(heat, tags, DecodeOptions(project=False, refine=False, adjust=False))
    assert plain[0, 0].tolist() == [60, 20, 1.0]


def test_the_mirrored_frame_swaps_left_and_right():
    heatmaps, tags = draw_maps("people", 0, T=1, K=17, hw=(24, 32))
    options = DecodeOptions()
    twin = list(options.flip_for(17))
    both = np.concatenate([heatmaps, heatmaps[:, twin, :, ::-1]]), np.concatenate([tags, tags[:, twin, :, ::-1]])
    once, twice = decode(heatmaps, tags, DecodeOptions(refine=False)), decode(*both, DecodeOptions(refine=False))
    found = once[0][..., 2] > 0
    assert found[:, 1:].any() and len(twice[0]) >= len(once[0])
    np.testing.assert_array_equal(np.sort(twice[0][twice[0][..., 2] > 0][:, 2]), np.sort(once[0][found][:, 2]))


def test_a_person_of_a_shifted_frame_is_shifted():
    heatmaps, tags = crowd_outputs(3, (256, 384))
    keypoints, scores = decode(heatmaps, tags)
    room = ((0, 0), (0, 0), (0, 0))
    wider = decode(np.pad(heatmaps, (*room, (32, 0))), np.pad(tags, (*room, (16, 0)), constant_values=99))
    np.testing.assert_allclose(wider[0][..., 0], np.where(keypoints[..., 2] > 0, keypoints[..., 0] + 64, 0), atol=1e-4)
    np.testing.assert_array_equal(wider[1], scores)


def test_inputs_stay_as_they_were_and_need_not_be_writable_or_contiguous():
    heatmaps, tags = draw_maps("people", 0, T=2, K=17, hw=(8, 12))
    before = heatmaps.copy(), tags.copy()
    want = decode(heatmaps, tags)
    np.testing.assert_array_equal(heatmaps, before[0])
    np.testing.assert_array_equal(tags, before[1])
    heatmaps.flags.writeable = False
    assert_same(decode(heatmaps, np.asfortranarray(tags)), want)


def test_two_threads_at_once_get_what_one_gets():
    maps = [crowd_outputs(n, (256, 256), flip=n % 2 == 0) for n in (2, 3, 4, 5)]
    want = [decode(*m) for m in maps]
    failures = []

    def work(first):
        for n in range(first, first + 40):
            got = decode(*maps[n % 4])
            if not all(np.array_equal(a, b) for a, b in zip(got, want[n % 4], strict=True)):
                failures.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    ("heat", "tags"),
    [
        ((1, 17, 8, 8), (1, 17, 8, 8)),
        ((1, 17, 8, 8), (2, 17, 4, 4)),
        ((1, 17, 8, 8), (1, 14, 4, 4)),
        ((3, 17, 8, 8), (3, 17, 4, 4)),
        ((1, 17, 9, 8), (1, 17, 4, 4)),
        ((1, 17, 0, 8), (1, 17, 0, 4)),
        ((17, 8, 8), (17, 4, 4)),
    ],
)
def test_wrong_shapes_are_named(heat, tags):
    with pytest.raises(ValueError, match="expected"):
        decode(np.zeros(heat, np.float32), np.zeros(tags, np.float32))


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match=r"heatmaps are float64; expected float32"):
        decode(np.zeros((1, 17, 8, 8)), np.zeros((1, 17, 4, 4), np.float32))  # type: ignore[arg-type]


def test_unknown_skeletons_need_an_order():
    with pytest.raises(ValueError, match="pass DecodeOptions\\(joint_order"):
        decode(np.zeros((1, 5, 8, 8), np.float32), np.zeros((1, 5, 4, 4), np.float32))


def test_warm_up_leaves_nothing_to_compile():
    entries: list[Any] = [decode_plain, unmirror, _add_resized]
    warm_up()
    compiled = [len(e.signatures) for e in entries]
    maps = draw_maps("people", 0, T=2, K=14, hw=(8, 8))
    decode(*maps)
    decode(maps[0][:1], maps[1][:1], DecodeOptions(project=False, duplicate_oks=0.5))
    decode_scales([(maps[0], None), maps], (16, 16))
    assert [len(e.signatures) for e in entries] == compiled
