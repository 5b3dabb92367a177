"""ScalesStep: runs one picture at several scales and averages the heatmaps, as the authors' multi-scale test does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.letterbox import Letterbox
from pipeline.step import HostStep, people_in_frame
from pipeline.types import People, Picture, on_host

Floats = NDArray[np.float32]


class ScalesStep(HostStep):
    """A HostStep that runs its network once per scale. It is made from an open HostStep, which it owns and closes.

    Geometry as in the authors' code: sides are rounded at the smallest scale and multiplied; tags are those of scale 1,
    or of the only scale; heatmaps are averaged and people decoded at the size of scale 1.
    """

    def __init__(self, step: HostStep, scales: Sequence[float]) -> None:
        super().__init__(
            step.runner_for,
            step.spec,
            step.options,
            engine=step.engine,
            about=f"{step.about}, scales {' '.join(f'{scale:g}' for scale in scales)}",
            on_close=step.close,
        )
        if step.spec.fixed_hw is not None:
            h, w = step.spec.fixed_hw
            step.close()
            raise ValueError(
                f"{step.spec.name} is fixed to 1x3x{h}x{w} and cannot do --scales; export it without --fixed"
            )
        self.scales = check_scales(scales)
        self._images: list[list[Floats]] = [[] for _ in range(self.slots)]
        self._parts: list[list[tuple[Floats, Floats | None]]] = [[] for _ in range(self.slots)]
        self._bases: list[Letterbox | None] = [None] * self.slots

    def prepare(self, slot: int, pictures: Sequence[Picture]) -> None:
        from kernels.cpu import preprocess

        image = on_host(*pictures)
        frame_wh = image.shape[1], image.shape[0]
        self._bases[slot] = self._letterbox(frame_wh, 1.0)
        self._images[slot] = []
        for scale in self.scales:
            letterbox = self._letterbox(frame_wh, scale)
            inputs = np.zeros((self.options.images_per_frame, 3, *letterbox.input_hw), np.float32)
            preprocess(
                image, inputs[0], scale=letterbox.scale, center=letterbox.center, mean=self.spec.mean, std=self.spec.std
            )
            if self.options.flip:
                inputs[1] = inputs[0, :, :, ::-1]
            self._images[slot].append(inputs)

    def infer(self, slot: int) -> None:
        self._parts[slot] = []
        for scale, images in zip(self.scales, self._images[slot], strict=True):
            n, _, h, w = images.shape
            heads = self.runner_for((n, h, w)).infer(images.astype(self.spec.input_dtype, copy=False))
            has_tags = scale == 1 or len(self.scales) == 1
            self._parts[slot].append((heads.heatmaps.copy(), heads.tags.copy() if has_tags else None))

    def finish(self, slot: int) -> list[People]:
        from kernels.cpu import decode_scales

        base = self._bases[slot]
        assert base is not None
        keypoints, scores = decode_scales(self._parts[slot], base.input_hw, self.options.decode)
        return [people_in_frame(keypoints, scores, base)]

    def input_shape(self, frame_wh: tuple[int, int]) -> tuple[int, int, int]:
        """The input shape of scale 1, at which people are decoded."""
        return self.options.images_per_frame, *self._letterbox(frame_wh, 1.0).input_hw

    def _letterbox(self, frame_wh: tuple[int, int], scale: float) -> Letterbox:
        short_side = self.options.size or self.spec.short_side
        return Letterbox.with_short_side(frame_wh, short_side, scale=scale, min_scale=min(self.scales))


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """The scales, largest first. Raises ValueError for scales that cannot be combined."""
    ordered = tuple(sorted(set(scales), reverse=True))
    listed = " ".join(f"{scale:g}" for scale in scales)
    if not ordered or not 0.1 <= ordered[-1] <= ordered[0] <= 8:
        raise ValueError(f"scales are {listed or 'none'}; expected numbers from 0.1 to 8")
    if len(ordered) > 1 and 1 not in ordered:
        raise ValueError(f"scales are {listed}; expected 1 among them, since the tags are those of scale 1")
    if any(abs(scale / ordered[-1] - round(scale / ordered[-1])) > 1e-6 for scale in ordered):
        raise ValueError(f"scales are {listed}; expected whole multiples of the smallest, such as 0.5 1 2")
    return ordered
