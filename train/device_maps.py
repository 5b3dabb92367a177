"""An ensemble's heatmaps in the memory of a device, and those of a batch's crops: ensemble_maps.py on tensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.device_crop import neighbours
from train.device_pictures import CHUNK
from train.ensemble_maps import EnsembleMaps, from_crop, from_picture, letterbox_of


class DeviceMaps:
    """The maps of all pictures of a mixture's sets, in DevicePictures' order; a set without maps has none.

    values: (cells of all maps, K) uint8 on the device, 255 for 1.
    On the host: known (pictures,) bool, whether a picture has maps; offsets (pictures,) int64 into values; sizes_wh
    (pictures, 2) int64, cells; scales (pictures,) and shifts (pictures, 2) float64: a point's place in cells, from the
    middle of the first, is scale * xy + shift.
    threads: that decode, by default one per CPU.
    """

    def __init__(
        self,
        sets: Sequence[EnsembleMaps | None],
        counts: Sequence[int],
        frames_wh: NDArray[np.int64],
        device: str | torch.device,
        threads: int = 0,
    ) -> None:
        self.known = np.repeat([one is not None for one in sets], counts)
        pictures = len(frames_wh)
        self.offsets, self.sizes_wh = np.zeros(pictures, np.int64), np.ones((pictures, 2), np.int64)
        self.scales, self.shifts = np.ones(pictures), np.zeros((pictures, 2))
        parts: list[Tensor] = []
        cells = 0
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for maps, first, count in zip(sets, np.cumsum([0, *counts[:-1]]).tolist(), counts, strict=True):
                if maps is None:
                    continue
                stream = pool.map(partial(_read, maps), range(count))
                number = first
                while chunk := list(islice(stream, CHUNK)):
                    for size_wh, values in chunk:
                        frame_wh = frames_wh[number, 0].item(), frames_wh[number, 1].item()
                        box = letterbox_of(frame_wh, maps.short_side)
                        self.scales[number], self.shifts[number] = from_picture(box)
                        self.offsets[number], self.sizes_wh[number] = cells, size_wh
                        cells, number = cells + len(values), number + 1
                    parts.append(torch.from_numpy(np.concatenate([values for _, values in chunk])).to(device))
        self.values = torch.cat(parts)

    def places(self, chosen: NDArray[np.int64], to_picture: NDArray[np.float64], stride: int) -> NDArray[np.float64]:
        """(N, 2, 3): from a cell of each crop, of `stride` pixels, to the cells of its picture's maps.

        chosen: (N,), numbers of pictures. to_picture: (N, 2, 3), from the crops' pixels.
        """
        return from_crop(to_picture, stride, self.scales[chosen], self.shifts[chosen])


def _read(maps: EnsembleMaps, index: int) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """A picture's maps: width and height, cells; (cells, K)."""
    values = maps.read(index)
    joints, h, w = values.shape
    return (w, h), np.ascontiguousarray(values.reshape(joints, -1).T)


def warp_maps(  # noqa: PLR0917  # private to the mixture, called once
    values: Tensor, offsets: Tensor, widths: Tensor, heights: Tensor, places: Tensor, cells: int
) -> Tensor:
    """(N, K, cells, cells) float32, 0..1: bilinear samples of the maps, 0 outside.

    values: as in DeviceMaps. offsets, widths, heights: (N,) int64, of each crop's maps. places: (N, 2, 3) float64.
    """
    out = torch.zeros((len(places), cells, cells, values.shape[1]), device=values.device)
    for index, share in neighbours(offsets, widths, heights, places, cells):
        out.addcmul_(values[index].float(), share[..., None])
    return (out / 255).permute(0, 3, 1, 2).contiguous()
