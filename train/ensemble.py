"""Heatmaps of an ensemble as training targets: one network at several scales, each picture also mirrored, averaged.

The average is more right than each of its parts, also for people whom nobody labelled; a network that is trained
towards it comes near it in a single pass. Source: Radosavovic et al. 2018, "Data Distillation".
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from core.spec import Channels
from export.head import HigherHead
from train.ensemble_maps import SCALES, STRIDE, entry_of, letterbox_of
from train.mixture import normalise
from train.pictures import CocoPictures

LOSSLESS = (cv2.IMWRITE_WEBP_QUALITY, 101)  # half of a PNG's size


def write_maps(
    model: HigherHead,
    pictures: CocoPictures,
    out: Path,
    *,
    short_side: int,
    mean: Channels,
    std: Channels,
    flip_order: tuple[int, ...],
    device: str = "cpu",
    bf16: bool = True,
    on_picture: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the averaged heatmaps of all pictures into one file, a WebP of (K * h, w) for each.

    model: gives one output for each resolution, without a calibration of its heatmaps. short_side: of its input at
    scale 1, a multiple of 128. on_picture: gets the number of pictures that are done.
    """
    if short_side % 128:
        raise ValueError(f"the short side is {short_side}; expected a multiple of 128, for scales of {SCALES}")
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # stubs lack it
    partial = out.with_name(f"{out.name}.tmp")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = str(short_side).encode()
        for index in range(len(pictures)):
            image = pictures.read(index)[0]
            base = letterbox_of((image.shape[1], image.shape[0]), short_side)
            cells = base.input_hw[0] // STRIDE, base.input_hw[1] // STRIDE
            total = np.zeros((pictures.joints, *cells), np.float32)
            for tensor in _inputs(image, short_side, mean, std):
                with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
                    outputs = model(tensor.to(device))
                heatmaps = [output[:, : pictures.joints].float().cpu().numpy() for output in outputs]
                for resolution in heatmaps:
                    upright = (resolution[0] + resolution[1][list(flip_order), :, ::-1]) / 2
                    total += np.stack([_resized(one, cells) for one in upright])
            total *= 255 / (len(SCALES) * len(heatmaps))
            stacked = np.clip(np.round(total), 0, 255).astype(np.uint8).reshape(-1, cells[1])
            archive.writestr(entry_of(pictures, index), cv2.imencode(".webp", stacked, LOSSLESS)[1].tobytes())
            on_picture(index + 1)
    partial.replace(out)


def _inputs(image: NDArray[np.uint8], short_side: int, mean: Channels, std: Channels) -> Iterator[torch.Tensor]:
    """(2, 3, H, W) float32 for each scale: the picture and its mirror image, normalised.

    The mirror is at W / 2, where the middle of the cells is: a column further than if pixels were read backwards.
    """
    for scale in SCALES:
        box = letterbox_of((image.shape[1], image.shape[0]), short_side, scale)
        h, w = box.input_hw
        matrix = np.array([[box.scale, 0, w / 2], [0, box.scale, h / 2]])
        matrix[:, 2] -= box.scale * np.array(box.center)
        mirrored = np.array([[-1.0], [1.0]]) * matrix + np.array([[0, 0, w], [0, 0, 0]])
        shown = [cv2.cvtColor(cv2.warpAffine(image, one, (w, h)), cv2.COLOR_BGR2RGB) for one in (matrix, mirrored)]
        pixels = normalise(torch.from_numpy(np.stack(shown).transpose(0, 3, 1, 2)), mean, std)
        yield pixels.contiguous(memory_format=torch.channels_last)


def _resized(one: NDArray[np.float32], hw: tuple[int, int]) -> NDArray[np.float32]:
    shrinks = one.shape[0] > hw[0]
    return cv2.resize(one, hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)  # type: ignore[return-value]
