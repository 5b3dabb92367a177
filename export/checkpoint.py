"""Weights from disk into a model: the authors' files, MMPose 0.x, our safetensors. All or nothing; no pickled code."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from core.errors import ModelError
from export.head import HigherHead
from export.hrnet import HigherHRNet
from export.model import BUNDLED, build_model

State = dict[str, Tensor]

# Prefixes before the authors' names: DataParallel, their half-precision wrapper, MMPose's two parts.
WRAPPERS = ("module.", "1.")
MMPOSE_PARTS = ("backbone.", "keypoint_head.")
BACKBONE = "backbone."  # start of the names of MoveNet's entries in tiny, small and narrow
LISTED = 6  # names of each kind in an error; the rest are counted


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The network that a checkpoint's keys and shapes imply. width: finest branch's channels, None for `bundled`."""

    width: int | None
    joints: int
    deconvolutions: int
    concatenate: bool
    residual_blocks: int
    bundled: str = ""  # "tiny" or "small", where it is one

    def __str__(self) -> str:
        if self.width is None:
            return f"{self.bundled} with {self.joints} joints"
        text = f"HigherHRNet-W{self.width} with {self.joints} joints"
        if (self.deconvolutions, self.concatenate, self.residual_blocks) != (1, True, 4):
            text += f", {self.deconvolutions} deconvolution modules of {self.residual_blocks} residual blocks"
            text += "" if self.concatenate or not self.deconvolutions else " without concatenation"
        return text

    def build(self) -> HigherHead:
        """The network with random weights."""
        if self.width is None:
            return build_model(self.bundled, joints=self.joints)
        return HigherHRNet(
            self.width,
            self.joints,
            deconvolutions=self.deconvolutions,
            concatenate=self.concatenate,
            residual_blocks=self.residual_blocks,
        )


def load_checkpoint(model: nn.Module, path: str | Path, *, grow: bool = False) -> None:
    """Load every entry of the file into the model; both must have exactly the same entries.

    grow: entries that the file lacks keep their values.

    Raises ModelError if the file is not a checkpoint or does not fit. Its message then lists missing, unexpected and
    misshapen entries and the model the file seems to be; the model is unchanged. Half-precision weights are widened.
    """
    state = read_state(path)
    load_state(model, (model.state_dict() | state) if grow else state, path)


def load_backbone(model: nn.Module, path: str | Path) -> None:
    """Load the file's `backbone.*` into the model; everything else stays as it is.

    Raises ModelError as load_checkpoint does, if the backbones differ.
    """
    backbone = {name: value for name, value in read_state(path).items() if name.startswith(BACKBONE)}
    others = {name: value for name, value in model.state_dict().items() if not name.startswith(BACKBONE)}
    load_state(model, {**others, **backbone}, path)


def build_from_checkpoint(path: str | Path) -> HigherHead:
    """The network that the file's keys describe, with its weights, in evaluation mode. Raises ModelError."""
    state = read_state(path)
    found = infer_architecture(state)
    if found is None:
        raise ModelError(
            f"{path} holds {len(state)} tensors ({_listed(sorted(state))}) that are no HigherHRNet's; expected a "
            "checkpoint of the authors, of MMPose 0.x or of this project"
        )
    model = found.build()
    load_state(model, state, path)
    return model.eval()


def load_state(model: nn.Module, state: State, path: str | Path) -> None:
    """As load_checkpoint, from entries already read; `path` is for the message."""
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    faults = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds.items() if names]
    if faults:
        seems = infer_architecture(state) or "none that is known here"
        raise ModelError(f"{path} does not fit the model: {'; '.join(faults)}; the file seems to be: {seems}")
    model.load_state_dict(state)


def read_state(path: str | Path) -> State:
    """The entries of a checkpoint under the authors' names, on the CPU. Raises ModelError."""
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path} is not a file; expected a checkpoint (.pth, .pth.tar or .safetensors)")
    try:
        loaded = _read(path)
    except Exception as error:  # a damaged file can fail anywhere in the readers
        # PyTorch's own words for this one advise to run the file's code.
        pickled = isinstance(error, pickle.UnpicklingError)
        reason = "no checkpoint, or one that holds code" if pickled else _first_line(error)
        raise ModelError(
            f"{path} cannot be read as a checkpoint ({reason}); expected tensors only, "
            "as a state_dict of PyTorch or as safetensors: download or save it again"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        got = f"keys {_listed([str(key) for key in loaded])}" if isinstance(loaded, dict) else type(loaded).__name__
        raise ModelError(f"{path} holds {got}; expected a state_dict: names and tensors only")
    return _authors_names({str(key): value for key, value in loaded.items()})


def infer_architecture(state: State) -> Architecture | None:
    """The network with these keys, found by the keys that differ between variants; None for a foreign file."""
    bundled = _bundled(state)
    if bundled is not None:
        return bundled
    head = state.get("final_layers.0.weight")
    if head is None or head.ndim != 4 or head.shape[0] < 2:
        return None
    joints, channels = head.shape[0] // 2, head.shape[1]
    first = state.get("deconv_layers.0.0.0.weight")
    deconvolutions = sum(f"deconv_layers.{i}.0.0.weight" in state for i in range(3))
    entry = state.get("transition1.0.0.weight")
    if entry is None or any(weight is not None and weight.ndim != 4 for weight in (first, entry)):
        return None
    return Architecture(
        width=entry.shape[0],
        joints=joints,
        deconvolutions=min(deconvolutions, 2),
        concatenate=first is None or first.shape[0] == channels + 2 * joints,
        residual_blocks=sum(key.startswith("deconv_layers.0.") and key.endswith(".conv1.weight") for key in state)
        if deconvolutions
        else 4,
    )


def _bundled(state: State) -> Architecture | None:
    """tiny or small, and how many joints such a model of these entries predicts; None if it is neither."""
    with torch.device("meta"):
        names = {name: build_model(name).state_dict().keys() for name in BUNDLED}
    # Both share a backbone: its names show that it is one of them, the other names show which. The most common names
    # decide, so that a model without a few of its entries is still recognised.
    best = max(names, key=lambda name: len(names[name] & state.keys()) - len(state.keys() - names[name]))
    if len(names[best] & state.keys()) <= 0.5 * len(names[best]):
        return None
    per_joint = [state[name] for name in ("backbone.logits.bias", "tags.bias", "more_tags.bias") if name in state]
    return Architecture(
        width=None,
        joints=per_joint[0].numel() if per_joint else 17,
        deconvolutions=1,
        concatenate=True,
        residual_blocks=0,
        bundled=best,
    )


def _read(path: Path) -> object:
    with path.open("rb") as file:
        start = file.read(9)
    # safetensors: the length of a JSON header in eight bytes, then the header.
    if path.suffix == ".safetensors" or start[8:] == b"{":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _authors_names(state: State) -> State:
    for _ in WRAPPERS:  # the wrappers can be nested in any order
        for wrapper in WRAPPERS:
            if all(key.startswith(wrapper) for key in state):
                state = {key.removeprefix(wrapper): value for key, value in state.items()}
    if all(key.startswith(MMPOSE_PARTS) for key in state):
        for part in MMPOSE_PARTS:
            state = {key.removeprefix(part): value for key, value in state.items()}
    return state


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
