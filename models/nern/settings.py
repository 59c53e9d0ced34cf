"""Settings of generated kernels, under the published keys: target, generator, optimiser, and how long.

    nern                            the generator, its losses, and how many kernels have a gradient in a step
    nern.embeddings                 coordinates as sines and cosines
    nern.embeddings.permutations    the order in which a layer's kernels get their coordinates
    optim                           optimiser and schedule
    task                            data and original network
    logging                         names and places of what is left

Keys that change nothing in the published code change nothing here: `norm_layer`, `normalization_mode` (the coordinates
are whole numbers), `task_loss_type` (labels are not used); nor do `verbose`, and the numbers of workers and GPUs.
Unknown keys and values out of range are refused by name. Source: Ashkenazi et al., "NeRN: Learning Neural
Representations for Neural Networks", ICLR 2023 (arXiv:2212.13554), and the options of its code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from bittrue.models.networks.settings import WIDEST
from bittrue.models.settings import Settings
from bittrue.models.training.settings import AUGMENT, Augment, Train

#: The CIFAR networks have 6 n + 2 layers, n blocks of each width.
BLOCKS = {"ResNet8": 1, "ResNet20": 3, "ResNet32": 5, "ResNet44": 7, "ResNet56": 9}
Architecture = Literal["ResNet8", "ResNet20", "ResNet32", "ResNet44", "ResNet56", "ResNet18"]


class TargetSettings(Settings):
    """The network whose kernels are generated; see `models.nern.networks`."""

    architecture: Architecture = Field(default="ResNet8", description="ResNet18 is ImageNet's, the others CIFAR's")
    option: Literal["A", "B"] = Field(
        default="A", description="shortcuts where widths change: zeros beside (A), or a convolution of one pixel (B)"
    )
    stem_stride: Literal[1, 2] = Field(
        default=1, description="of the first convolution of a CIFAR network; 1 published"
    )
    pixels: Literal["codes", "imagenet"] = Field(
        default="codes", description="codes / 128, or standardised by the means and deviations of ImageNet's channels"
    )


class Permutations(Settings):
    """Which kernel of a layer gets which coordinates; `path` is the folder where tours are kept."""

    permute_mode: Literal["infilter", "crossfilter"] | None = None
    num_workers: int = Field(default=3, ge=1, description="layers that are toured at once; the cores bound it")
    path: Path | None = Field(default=None, description="folder that keeps tours by the content they are of")


class Embeddings(Settings):
    """Coordinates as sines and cosines; see `models.nern.embedding`."""

    type: Literal["basic", "ffn"] = "basic"
    num_idxs: Literal[3] = Field(default=3, description="layer, filter, channel")
    enc_levels: int = Field(default=20, ge=1, le=1024)
    base: float = Field(default=1.25, gt=0)
    fusion_mode: Literal["concat", "sum"] = "concat"
    normalization_mode: Literal["local", "global", "None"] | None = Field(default="local", description="no effect")
    gauss_scale: tuple[float, float, float] = Field(default=(1.0, 0.1, 0.1), description="of ffn, for each index")
    permutations: Permutations = Permutations()
    collisions: Literal["refuse", "accept"] = Field(
        default="refuse", description="two coordinates with the same embedding, which sum always has"
    )

    @model_validator(mode="after")
    def _summed(self) -> Self:
        if self.type == "ffn" and self.fusion_mode == "sum":
            raise ValueError("type ffn mixes all indices and has nothing to sum; take fusion_mode concat")
        return self


class Nern(Settings):
    """The generator and its losses; see `models.nern.generator` and `models.nern.losses`."""

    init: Literal["fmod", "default", "checkpoint"] = "fmod"
    checkpoint_path: Path | None = Field(default=None, description="a generator.pt to begin with")
    method: Literal["kxk"] = Field(
        default="kxk", description="a whole kernel at once; the published code has no other that runs"
    )
    output_size: Literal[1, 3, 5, 7] = Field(default=3, description="side of a generated kernel")
    norm_layer: str = Field(default="bn", description="no effect")
    act_layer: Literal["relu", "leaky_relu", "hardswish", "gelu", "relu6", "elu"] = "relu"
    num_blocks: int = Field(default=3, ge=2, le=64, description="linear layers, the last one included")
    hidden_layer_size: int = Field(default=30, ge=1, le=WIDEST)
    weights_batch_size: int | None = Field(default=1 << 16, ge=1, description="kernels with a gradient; null: all")
    weights_batch_method: Literal[
        "all",
        "sequential_layer",
        "random_layer",
        "random_batch",
        "random_batch_without_replacement",
        "random_weighted_batch",
    ] = "all"
    embeddings: Embeddings = Embeddings()
    reconstruction_loss_weight: float = Field(default=1.0, ge=0)
    attention_loss_weight: float = Field(default=1e-5, ge=0)
    distillation_loss_weight: float = Field(default=1e-5, ge=0)
    task_loss_weight: Literal[0] = Field(default=0, description="labels are not used")
    task_loss_type: Literal["CELoss"] = Field(default="CELoss", description="no effect")
    reconstruction_loss_type: Literal["L2Loss", "MSELoss"] = "L2Loss"
    attention_loss_type: Literal["L2BatchedAttentionLoss", "L2AttentionLoss", "SPAttentionLoss"] = (
        "L2BatchedAttentionLoss"
    )
    distillation_loss_type: Literal["KLDivLoss", "StableKLDivLoss", "MultiStableKLDivLoss", "TempStableKLDivLoss"] = (
        "KLDivLoss"
    )
    sampling_mode: Literal["center", "average", "max"] = Field(
        default="center", description="of a generated kernel, for a convolution of one pixel"
    )
    keep: tuple[str, ...] = Field(
        default=(), description="convolutions that stay as they are, by path; `others`: all that cannot be generated"
    )

    @model_validator(mode="after")
    def _begins(self) -> Self:
        if (self.init == "checkpoint") != (self.checkpoint_path is not None):
            raise ValueError("init checkpoint and checkpoint_path belong together; give both or neither")
        return self


class Optim(Settings):
    """Optimiser and schedule; see `models.nern.optimisers`."""

    optimizer_type: Literal["adamw", "sgd", "adadelta", "ranger"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-3, ge=0)
    ranger_use_gc: bool = Field(default=True, description="gradients of matrices without their rows' means")
    max_gradient_norm: float | None = Field(default=None, gt=0, description="longest gradient of each parameter")
    max_gradient: float | None = Field(default=None, gt=0, description="largest entry of a gradient")
    lr_scheduler_type: Literal["cosine", "exponential"] = "cosine"
    min_lr: float = Field(default=1e-6, ge=0)
    step_interval: int = Field(default=1, ge=0, description="steps between changes of the rate; 0: a hundredth of all")
    gamma: float = Field(default=0.0, ge=0, le=1, description="exponential: factor of a change; 0: it ends at min_lr")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}, and lie from 0 up to below 1")
        if self.min_lr >= self.lr:
            raise ValueError(f"min_lr {self.min_lr:g} is not below lr {self.lr:g}")
        if self.lr_scheduler_type == "exponential" and not self.gamma and not self.min_lr:
            raise ValueError("an exponential schedule never reaches min_lr 0; give gamma, or a min_lr above 0")
        return self


class Generate(Settings):
    """How long a generator is trained, and when it is looked at; exactly one of `epochs` and `num_iterations`."""

    batch_size: int = Field(default=256, ge=1, description="images of a step")
    epochs: int | None = Field(default=250, ge=1)
    num_iterations: int | None = Field(default=None, ge=1)
    eval_epochs_interval: int | None = Field(default=1, ge=1)
    save_epochs_interval: int | None = Field(default=400, ge=1)
    eval_iterations_interval: int | None = Field(default=None, ge=1)
    save_iterations_interval: int | None = Field(default=None, ge=1)
    eval_loss_window_size: int = Field(default=20, ge=1, description="samples of attention and distillation losses")
    eval_loss_window_interval: int = Field(default=10, ge=1, description="steps from one sample to the next")
    loss_warmup_iterations: int = Field(default=10_000, ge=0, description="steps by the reconstruction loss alone")
    warmup_on_batch: bool = Field(
        default=False, description="in these steps only the kernels that have a gradient are generated (ours)"
    )
    learn_fc_layer: bool = Field(default=False, description="the weights of the target's classifier are trained, too")
    use_random_data: bool = Field(default=False, description="values drawn from -2 to 2 instead of images")
    augment: Augment = Field(default="none", description=AUGMENT)
    seed: int = Field(default=1, ge=0)
    threads: int = Field(default=1, ge=1, description="of the CPU; the order of sums, and so the weights, depend on it")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.num_iterations is None):
            raise ValueError("give either epochs or num_iterations, and null for the other")
        return self


class Integers(Settings):
    """The generator in integers, and its training as such through the integer target; see `models.nern.exact`."""

    requantize: Literal["shift", "multiplier"] = Field(
        default="shift", description="how the sums of the generator's layers become codes; see bittrue.convert"
    )
    images: int = Field(default=1000, ge=2, description="training images that the target is calibrated on")
    num_iterations: int = Field(default=400, ge=0, description="steps of training; 0 skips it")
    batch_size: int = Field(default=64, ge=1, description="images of a step")
    lr: float = Field(default=3e-5, gt=0)
    reconstruction_loss_weight: float = Field(default=1.0, ge=0)
    distillation_loss_weight: float = Field(default=1.0, ge=0)
    eval_iterations_interval: int = Field(default=100, ge=1, description="steps between evaluations; the best is kept")
    seed: int = Field(default=1, ge=0)
    threads: int = Field(default=1, ge=1, description="of the CPU; the order of sums, and so the weights, depend on it")


class Original(Train):
    """Training of the original network, whose neighbouring kernels may be drawn towards each other."""

    smoothness: Literal["none", "Cosine", "L2"] = Field(default="none", description="of kernels beside each other")
    smoothness_factor: float = Field(default=1e-4, ge=0)


class Task(Settings):
    """The data set, and the original network by its published name."""

    task_name: Literal["cifar10", "cifar100", "imagenet", "fashion-mnist", "mnist", "digits"] = "mnist"
    imagenet_path: Path | None = None
    data_path: Path | None = Field(default=None, description="folder of the data set's files (ours)")
    original_model_name: str = "ResNet20"
    use_random_data: bool = False


class Logging(Settings):
    """What a run is called and where it leaves its files."""

    exp_name: str = Field(default="NeRN_Train", pattern=r"^[A-Za-z0-9._-]+$")
    log_interval: int = Field(default=20, ge=1)
    log_dir: Path = Path("outputs")
    disable_logging: bool = False
    verbose: bool = False
    use_tensorboard: bool = False


class Config(Generate):
    """A published configuration file."""

    original_model_path: Path | None = None
    num_workers: int = Field(default=0, ge=0)
    num_gpus: int = Field(default=1, ge=0)
    no_cuda: bool = False
    nern: Nern = Nern()
    task: Task = Task()
    optim: Optim = Optim()
    logging: Logging = Logging()
