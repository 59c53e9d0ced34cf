"""The recipes of `fs`: a trained MLP or ResMLP whose activations become FS-neurons (see `models.fs.convert`)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bittrue.flow.engine import recipe as common
from bittrue.models.fs.settings import Convert, Sweep
from bittrue.models.networks.settings import Activation, MlpSettings, Quantize, ResMLPSettings
from bittrue.models.settings import Settings
from bittrue.models.training.settings import Qat, Train

_OF_MLP, _OF_RESMLP = ("hidden", "norm"), ("patch", "embed", "blocks", "hidden_factor")


class NetworkPart(Settings):
    """An MLP (`hidden`, `norm`) or a ResMLP (the other keys); see `models.networks.settings`."""

    kind: Literal["mlp", "resmlp"] = "mlp"
    nonlinearity: Activation = "relu"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64, 64, 64)
    norm: bool = True
    patch: int = Field(4, ge=1)
    embed: int = Field(64, ge=1)
    blocks: int = Field(3, ge=1)
    hidden_factor: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _own_keys(self) -> Self:
        for name in _OF_RESMLP if self.kind == "mlp" else _OF_MLP:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} does not belong to kind {self.kind}; leave it out or choose the other kind")
        self.settings()
        return self

    def settings(self) -> MlpSettings | ResMLPSettings:
        """The settings of the network of this kind."""
        if self.kind == "mlp":
            return MlpSettings(nonlinearity=self.nonlinearity, hidden=self.hidden, norm=self.norm)
        if self.nonlinearity not in ("relu", "swish"):
            raise ValueError(f"a resmlp has nonlinearity relu or swish, not {self.nonlinearity}")
        return ResMLPSettings(nonlinearity=self.nonlinearity, **{name: getattr(self, name) for name in _OF_RESMLP})


class Recipe(common.Recipe):
    """A recipe of this system. `quantize` is for what is not spiking, `finetune` trains through spikes."""

    system: Literal["fs"]
    network: NetworkPart = NetworkPart()
    train: Train = Train()
    convert: Convert = Convert()
    quantize: Quantize = Quantize()
    finetune: Qat = Qat(epochs=0)
    sweep: Sweep = Sweep()
