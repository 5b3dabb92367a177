"""An ensemble's heatmaps in the memory of a device, and those of a batch's crops: ensemble_maps.py on tensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.ensemble_maps import STRIDE, EnsembleMaps, letterbox_of


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
        first = cells = 0
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for maps, count in zip(sets, counts, strict=True):
                for index, values in enumerate(pool.map(maps.read, range(count)) if maps is not None else ()):
                    number = first + index
                    width, height = frames_wh[number].tolist()
                    box = letterbox_of((width, height), maps.short_side if maps is not None else 0)
                    self.offsets[number], self.sizes_wh[number] = cells, values.shape[:0:-1]
                    self.scales[number] = box.scale / STRIDE
                    self.shifts[number] = box.to_input(np.zeros(2)) / STRIDE - 0.5
                    parts.append(torch.from_numpy(values.reshape(len(values), -1).T.copy()).to(device))
                    cells += parts[-1].shape[0]
                first += count
        self.values = torch.cat(parts)

    def places(self, chosen: NDArray[np.int64], to_picture: NDArray[np.float64], stride: int) -> NDArray[np.float64]:
        """(N, 2, 3): from a cell of each crop, of `stride` pixels, to the cells of its picture's maps.

        chosen: (N,), numbers of pictures. to_picture: (N, 2, 3), from the crops' pixels.
        """
        scale = self.scales[chosen, None]
        origin = to_picture[:, :, :2].sum(2) * (stride / 2) + to_picture[:, :, 2]
        shift = origin * scale + self.shifts[chosen]
        return np.concatenate([to_picture[:, :, :2] * stride * scale[..., None], shift[..., None]], 2)


def warp_maps(  # noqa: PLR0917  # private to the mixture, called once
    values: Tensor, offsets: Tensor, widths: Tensor, heights: Tensor, places: Tensor, cells: int
) -> Tensor:
    """(N, K, cells, cells) float32, 0..1: bilinear samples of the maps, 0 outside.

    values: as in DeviceMaps. offsets, widths, heights: (N,) int64, of each crop's maps. places: (N, 2, 3) float64.
    """
    grid = torch.arange(cells, device=values.device, dtype=torch.float64)
    x, y = (
        (
            places[:, axis, 0, None, None] * grid
            + places[:, axis, 1, None, None] * grid[:, None]
            + places[:, axis, 2, None, None]
        ).float()
        for axis in (0, 1)
    )  # (N, cells, cells)
    left, top = x.floor(), y.floor()
    widths, heights, offsets = (value[:, None, None] for value in (widths, heights, offsets))
    out = torch.zeros((*x.shape, values.shape[1]), device=values.device)
    for below in (0, 1):
        row = top.int() + below
        row_share = (y - top if below else 1 - y + top) * ((row >= 0) & (row < heights))
        start = offsets + row.clamp(min=0).minimum(heights - 1) * widths
        for right in (0, 1):
            column = left.int() + right
            share = row_share * (x - left if right else 1 - x + left) * ((column >= 0) & (column < widths))
            index = start + column.clamp(min=0).minimum(widths - 1)
            out.addcmul_(values[index].float(), share[..., None])
    return (out / 255).permute(0, 3, 1, 2).contiguous()
