"""The regular networks on images, quantised after training: `models.int8.convert` with what belongs to their codes."""

from __future__ import annotations

from typing import Any

from bittrue.models.data.sets import Data
from bittrue.models.int8.convert import convert
from bittrue.models.int8.converted import Converted
from bittrue.models.networks.base import ImageNetwork
from bittrue.models.networks.settings import Quantize
from bittrue.sim.errors import BittrueError


def of_codes(model: ImageNetwork, data: Data, **options: Any) -> Converted:
    """The integer network of a trained one, which takes the same codes: a step of the input is one of them.

    `options` are those of `convert`; the model is left as it is.
    """
    if not isinstance(model, ImageNetwork):
        raise BittrueError(
            f"cannot quantise a {type(model).__name__}: it is none of the networks of bittrue.models.networks; "
            "bittrue.convert takes any network of your own"
        )
    return convert(model.samples_first(), data, preprocess=model.values, input_range=127.0, **options)


def post_training(model: ImageNetwork, data: Data, settings: Quantize = Quantize(), **options: Any) -> Converted:  # noqa: B008  (frozen)
    """The integer network of a trained one, whose percentile is the best on the validation split.

    Its tables of functions have segments, and what grows along a chain of sums gets steps of its own.
    """
    own = {"bits": settings.bits, "activation_bits": settings.bits, "ranges": settings.percentiles}
    own |= {"segments": settings.segments, "own_steps": True, "images": settings.images}
    return of_codes(model, data, **own | options)
