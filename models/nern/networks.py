"""The residual networks whose kernels are generated, with the names of parameters under which they are published.

CIFAR's, of 6 n + 2 layers (He et al. 2015, arXiv:1512.03385, section 4.2)
    x = relu(bn1(conv1 x)); three stages of n blocks, of 16, 32 and 64 channels, the second and third of stride 2
    block: x = relu(bn2(conv2 relu(bn1(conv1 x))) + shortcut(x))
    shortcut, where width or size change: every other pixel with zeros as further channels, half of them in front (A),
    or bn(conv1x1 x) (B)
    logits = linear(mean over all pixels)
ResNet18, ImageNet's: a stem of 7 x 7 and a pool, four stages of two blocks, of 64 to 512 channels, shortcuts B

`forward` takes codes `[B, channels, height, width]` as `encode` makes them. The sums of a block go through `total`, a
module that changes nothing, so that they can be watched.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from bittrue.models.data.sets import INPUT_SCALE
from bittrue.models.nern.settings import BLOCKS, TargetSettings
from bittrue.models.networks.convolution import Convolution, Pixels
from bittrue.models.training import storage
from bittrue.sim.errors import BittrueError

#: Means and deviations of the channels of ImageNet's images, as values 0..1, that pretrained networks expect.
MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Padded, without bias, normal with variance 2 / (inputs k^2)."""
    made = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    return made


class Widened(nn.Module):
    """Shortcut A: every other pixel, and `outputs - inputs` channels of zeros, half of them in front."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.front = stride, (outputs - inputs) // 2
        self.behind = outputs - inputs - self.front

    def forward(self, x: Tensor) -> Tensor:
        x = max_pool2d(x, 1, self.stride)
        return torch.cat([0 * x[:, : self.front], x, 0 * x[:, : self.behind]], 1)


class Block(nn.Module):
    """Two convolutions beside a shortcut; `beside` is the name under which the shortcut is published."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: str, beside: str = "shortcut") -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        shortcut: nn.Module = nn.Identity()
        if (stride != 1 or inputs != outputs) and option == "A":
            shortcut = Widened(inputs, outputs, stride)
        elif stride != 1 or inputs != outputs:
            shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.beside = beside
        self.add_module(beside, shortcut)
        self.total = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(self.total(y + getattr(self, self.beside)(x)))


class Resnet(Pixels):
    """The network in the module's docstring.

    `maps` are the paths of the modules whose results are compared in a distillation, each with the times that it
    counts: as published the stem, and of every block the first normalisation and, twice, the sum, which there takes the
    place of the second one (it is added in place). `kept` are convolutions that are never generated.
    """

    settings = TargetSettings

    def __init__(self, network: TargetSettings, shape: tuple[int, int, int], classes: int, gain: int = 1) -> None:
        super().__init__(network, shape, classes, gain)
        if network.pixels == "imagenet" and shape[2] != 3:
            raise BittrueError(
                f"target: pixels imagenet standardises three channels, and these images have {shape[2]}; take codes"
            )
        large = network.architecture == "ResNet18"
        widths, blocks = ((64, 128, 256, 512), 2) if large else ((16, 32, 64), BLOCKS[network.architecture])
        self.conv1 = convolution(shape[2], widths[0], 7 if large else 3, 2 if large else network.stem_stride)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stem_pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        channels, self.stages = widths[0], []
        for stage, outputs in enumerate(widths):
            made = []
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                made.append(Block(channels, outputs, stride, *(("B", "downsample") if large else (network.option,))))
                channels = outputs
            self.stages.append(f"layer{stage + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*made))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = "fc" if large else "linear"
        self.add_module(self.last, nn.Linear(channels, classes))
        blocks = [path for path, module in self.named_modules() if isinstance(module, Block)]
        self.maps: dict[str, int] = {"bn1": 1}
        for path in blocks:
            self.maps |= {f"{path}.bn1": 1, f"{path}.total": 2}
        self.kept = ("conv1", *(f"{path}.downsample.0" for path in blocks)) if large else ()

    @property
    def classifier(self) -> nn.Linear:
        return getattr(self, self.last)

    def values_of(self, codes: Tensor) -> Tensor:
        """What the first convolution sees of codes."""
        x = codes.to(self.conv1.weight.dtype)
        if self.network.pixels == "codes":
            return x * INPUT_SCALE
        factors = [1 / (255 * deviation) for deviation in DEVIATIONS]
        offsets = [(128 / 255 - mean) / deviation for mean, deviation in zip(MEANS, DEVIATIONS, strict=True)]
        return x * x.new_tensor(factors)[:, None, None] + x.new_tensor(offsets)[:, None, None]

    def forward(self, codes: Tensor) -> Tensor:
        x = self.stem_pool(relu(self.bn1(self.conv1(self.values_of(codes)))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.classifier(self.pool(x))


#: Networks that a file may hold.
KNOWN = (Resnet, Convolution)


def load(path: Path, network: TargetSettings, shape: tuple[int, int, int], classes: int, gain: int) -> Pixels:
    """A trained network: a `network.pt` of bittrue, or a state dictionary under the published names.

    Of the latter the option of the shortcuts is what a JSON file of the same stem says (`basic_block_option`, also
    within `args`), else that of `network`; its images are standardised as published.
    """
    path = Path(path)
    try:
        beginning = path.read_bytes()[-71:]
    except OSError as error:
        raise BittrueError(f"original {path}: cannot be read ({error.strerror})") from error
    if beginning[:7] == b"sha256:":
        return storage.load(path, *KNOWN)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BittrueError(
            f"original {path}: neither a network.pt of bittrue nor a state dictionary ({reason})"
        ) from error
    return _published(path, content, network, shape, classes, gain)


def _published(path: Path, content: Any, network: TargetSettings, *data: Any) -> Resnet:
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise BittrueError(f"original {path}: it is no state dictionary of tensors; save model.state_dict()")
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    beside = path.with_suffix(".json")
    option = network.option
    if beside.exists():
        try:
            said = json.loads(beside.read_text())
            option = (said.get("args", said)).get("basic_block_option", option)
        except (ValueError, AttributeError, OSError) as error:
            raise BittrueError(f"original {path}: {beside.name} beside it is not JSON with keys ({error})") from error
    option = "A" if option == "A" else "B"
    model = Resnet(network.model_copy(update={"option": option, "pixels": "imagenet"}), *data)
    own = model.state_dict()
    counted = {name for name in own if name.endswith("num_batches_tracked")}
    wrong = sorted((own.keys() - counted) ^ (state.keys() - counted))
    if wrong:
        there = "there" if wrong[0] in state else "here"
        raise BittrueError(
            f"original {path}: it is no {network.architecture} with shortcuts {option} ({wrong[0]} is only {there}); "
            "name the right architecture and option"
        )
    for name, tensor in state.items():
        if name in own and own[name].shape != tensor.shape:
            raise BittrueError(
                f"original {path}: {name} is {list(tensor.shape)} there and {list(own[name].shape)} here; it was "
                "trained for other images or classes"
            )
    model.load_state_dict(state, strict=False)
    return model.eval()
