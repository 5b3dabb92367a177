"""One training step: losses, gradients, AdamW, the moving average of the weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from export.over_movenet import OverMoveNet
from train.device_mixture import DeviceMixture
from train.losses import focal_loss, heatmap_loss, tag_losses
from train.mixture import Batch, Mixture, normalise
from train.optimise import MovingAverage, freeze
from train.options import Options
from train.teacher import Teacher

LAYOUT = torch.channels_last  # on an H200 a pass takes 53 ms with it, and 159 ms with torch.contiguous_format
SLOW_S = 2.0  # a first pass that takes longer is the only one in a layout other than LAYOUT


class Step:
    """Trains `model` on one batch per call.

    optimizer: with the groups of parameter_groups. mixture: the batches' source. teacher: for an OverMoveNet.
    on_note: gets what was chosen for the GPU.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage,
        mixture: Mixture | DeviceMixture,
        options: Options,
        *,
        teacher: Teacher | None = None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.average = average
        self.options = options
        self.joints, self.strides = mixture.joints, tuple(mixture.strides)
        self.teacher = teacher
        self.on_note = on_note
        self._mean, self._std = (torch.tensor(value, device=options.device) for value in (options.mean, options.std))
        self._set_layout(LAYOUT)

    def __call__(self, batch: Batch, *, rate: float, frozen: bool = False) -> dict[str, Tensor]:
        """The losses by name, () float32 on the device. frozen: the backbone is not trained."""
        self._set_trained(frozen=frozen)
        losses = self._backward(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        self.optimizer.step()
        self.average.update(self.model)
        return losses

    def choose_layout(self, batch: Batch, *, frozen: bool = False) -> None:
        """Change the memory layout from LAYOUT to contiguous if this GPU is faster with that; some seconds at most.

        The depthwise convolutions decide, differently on each GPU.
        """
        self._set_trained(frozen=frozen)
        seconds = {layout: self._time(batch, layout) for layout in (LAYOUT, torch.contiguous_format)}
        self.optimizer.zero_grad(set_to_none=True)
        self._set_layout(min(seconds, key=seconds.__getitem__))
        times = ", ".join(f"{layout} {1000 * value:.1f} ms" for layout, value in seconds.items())
        self.on_note(f"forward and backward take {times}")

    def _time(self, batch: Batch, layout: torch.memory_format) -> float:
        """Seconds of the second pass in this layout: the first loads the kernels. See SLOW_S."""
        self._set_layout(layout)
        for _ in range(2):
            torch.cuda.synchronize()
            since = time.monotonic()
            self._backward(batch)
            torch.cuda.synchronize()
            seconds = time.monotonic() - since
            if layout != LAYOUT and seconds > SLOW_S:
                break
        return seconds

    def _set_layout(self, layout: torch.memory_format) -> None:
        self._layout = layout
        for model in (self.model, self.average.model):  # equal strides: their tensors are averaged in one launch
            model.to(device=self.options.device, memory_format=layout)  # type: ignore[call-overload]  # stubs lack it
        if self.teacher is not None:
            self.teacher.to(self.options.device, layout)

    def _set_trained(self, *, frozen: bool) -> None:
        freeze(self.model, self.options.freeze, backbone=frozen)
        self.model.train()

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of this batch; their clipped gradients are in the parameters then."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._losses(batch)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        return {name: loss.detach() for name, loss in losses.items()}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        options = self.options
        images, cells = (tensor.to(options.device, non_blocking=True) for tensor in (batch["image"], batch["cells"]))
        images = normalise(images, self._mean, self._std).contiguous(memory_format=self._layout)
        targets, masks = (
            [tensor.to(options.device, non_blocking=True) for tensor in tensors]
            for tensors in (batch["heatmaps"], batch["masks"])
        )
        device = torch.device(options.device).type
        with torch.autocast(device, torch.bfloat16) if options.bf16 else nullcontext():
            if self.teacher is None:
                outputs = self.model(images)
                feature_loss = images.new_zeros(())
            else:
                assert isinstance(self.model, OverMoveNet)
                parts = self.model.backbone(images)
                outputs = self.model.head(parts)
                feature_loss = self.teacher.teach(images, batch["set"], parts, targets[0], masks[0])
        outputs = [output.float() for output in outputs]
        losses = {}
        for stride, maps, wanted, known in zip(self.strides, outputs, targets, masks, strict=True):
            loss = focal_loss if options.focal and stride == self.strides[0] else heatmap_loss
            losses[f"heatmaps_{stride}"] = loss(maps[:, : self.joints], wanted, known, options.foreground)
        pull, push = tag_losses(outputs[0][:, self.joints :], cells)
        total = options.heatmap_weight * torch.stack(list(losses.values())).sum()
        total = total + options.pull_weight * pull + options.push_weight * push + feature_loss
        losses |= {"pull": pull, "push": push}
        return {"loss": total, **losses} | ({} if self.teacher is None else {"features": feature_loss})
