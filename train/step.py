"""One training step: losses, gradients, AdamW, the moving average of the weights; on a GPU as a CUDA graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from export.small import Small
from export.tiny import Tiny
from train.device_mixture import DeviceMixture
from train.losses import focal_loss, heatmap_loss, tag_losses
from train.mixture import Batch, Mixture, normalise
from train.optimise import AdamW, MovingAverage, freeze
from train.options import Options
from train.step_graph import StepGraph
from train.teacher import Teacher

WARM_STEPS = 5  # before the step is recorded as a graph
TIMED_STEPS = 3  # with each memory layout, to choose the faster


class Step:
    """Trains `model` on one batch per call.

    mixture: the batches' source; those of a DeviceMixture always have the same shapes, so that on a GPU the step is
    recorded as a CUDA graph after WARM_STEPS, unless the options say otherwise. teacher: for a Tiny or a Small.
    on_note: gets what was chosen for the GPU.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: AdamW,
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
        self.graph: StepGraph | None = None
        device = torch.device(options.device)
        self._may_record = options.graph and device.type == "cuda" and isinstance(mixture, DeviceMixture)
        self._warm = 0  # steps taken as they would be recorded
        self._mean, self._std = (torch.tensor(value, device=device) for value in (options.mean, options.std))
        self._set_layout(torch.channels_last)

    def __call__(self, batch: Batch, *, rate: float, frozen: bool = False) -> dict[str, Tensor]:
        """The losses by name, () float32 on the device. frozen: the backbone is not trained.

        The next call can overwrite the result.
        """
        if self.graph is not None:
            self.optimizer.prepare(rate)
            losses = self.graph.replay(batch)
        else:
            self._set_trained(frozen=frozen)
            losses = self._backward(batch)
            self.optimizer.prepare(rate, [p for p in self.model.parameters() if p.grad is not None])
            self.optimizer.apply()
            self._warm += not frozen
            if self._may_record and self._warm == WARM_STEPS:
                self._record(batch)
        self.average.update(self.model)
        return losses

    def choose_layout(self, batch: Batch, *, frozen: bool = False) -> None:
        """Keep the memory layout that is faster on this GPU: the depthwise convolutions decide, differently on each."""
        self._set_trained(frozen=frozen)
        seconds = {}
        for layout in (torch.contiguous_format, torch.channels_last):
            self._set_layout(layout)
            for _ in range(2):
                self._backward(batch)  # the libraries choose kernels
            torch.cuda.synchronize()
            since = time.monotonic()
            for _ in range(TIMED_STEPS):
                self._backward(batch)
            torch.cuda.synchronize()
            seconds[layout] = (time.monotonic() - since) / TIMED_STEPS
        self.optimizer.zero_grad(set_to_none=True)
        self._set_layout(min(seconds, key=seconds.__getitem__))
        times = ", ".join(f"{layout} {1000 * value:.1f} ms" for layout, value in seconds.items())
        self.on_note(f"forward and backward take {times}")

    def _set_layout(self, layout: torch.memory_format) -> None:
        self._layout = layout
        for model in (self.model, self.average.model):  # equal strides: their tensors are averaged in one launch
            model.to(device=self.options.device, memory_format=layout)  # type: ignore[call-overload]  # stubs lack it
        if self.teacher is not None:
            self.teacher.to(self.options.device, layout)

    def _set_trained(self, *, frozen: bool) -> None:
        freeze(self.model, self.options.freeze, backbone=frozen)
        self.model.train()

    def _record(self, batch: Batch) -> None:
        """Record the step, for the batches after this one. If that fails, steps go on without a graph."""

        def step(batch: Batch) -> dict[str, Tensor]:
            losses = self._backward(batch)
            self.optimizer.apply()
            return losses

        self.optimizer.zero_grad(set_to_none=True)  # the graph's gradients get memory of its own
        try:
            self.graph = StepGraph(step, batch)
            self.on_note("steps run as a CUDA graph")
        except RuntimeError as error:
            self.optimizer.zero_grad(set_to_none=True)
            self.on_note(f"steps run without a CUDA graph: {str(error).splitlines()[0]}")

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
        # A graph must not depend on casts that were cached before it.
        with torch.autocast(device, torch.bfloat16, cache_enabled=False) if options.bf16 else nullcontext():
            if self.teacher is None:
                outputs = self.model(images)
                feature_loss = images.new_zeros(())
            else:
                assert isinstance(self.model, Tiny | Small)
                parts = self.model.backbone(images)
                outputs = self.model.head(*parts)
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
