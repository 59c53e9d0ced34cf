"""Models in published C headers, with random parameters."""

from __future__ import annotations

import numpy as np


def text(arrays: dict[str, np.ndarray]) -> str:
    def braces(values):
        return "{" + ", ".join(braces(v) if np.ndim(v) else str(int(v)) for v in values) + "}"

    rows = ["#ifndef PARAMS_H", "#define PARAMS_H", "", "#include <ap_int.h>", ""]
    for name, values in arrays.items():
        kind = "ap_uint<8>" if name.endswith("_s") else "ap_int<8>"
        rows += [f"const {kind} {name}{''.join(f'[{n}]' for n in values.shape)} = ", braces(values) + ";", ""]
    return "\n".join([*rows, "#endif // PARAMS_H", ""])


def random_model(rng, *, blocks, tokens, features, channels, hidden, classes, knots=None):
    """Random parameters, by their published names: those of quant_params.h and those of lerp_psa_params.h."""
    arrays, tables = {}, {}

    def stage(name, outputs, inputs=None):
        shape = (outputs,) if inputs is None else (outputs, inputs)
        arrays[f"{name}_w"] = rng.integers(-128, 128, shape)
        arrays[f"{name}_b"] = rng.integers(-20, 21, outputs)
        arrays[f"{name}_s"] = rng.integers(5, 9, outputs) + (0 if inputs is None else inputs.bit_length() // 2)

    stage("embed_linear", channels, features)
    for i in range(blocks):
        token, mlp = f"blocks_{i}_token_mixer", f"blocks_{i}_mlp"
        stage(f"{token}_affine_1", channels)
        stage(f"{token}_linear", tokens, tokens)
        stage(f"{token}_affine_2", channels)
        stage(f"{token}_res_affine", channels)
        stage(f"{mlp}_linear_1", hidden, channels)
        stage(f"{mlp}_linear_2", channels, hidden)
        stage(f"{mlp}_res_affine", channels)
        if knots:
            tables[f"{mlp}_psa_1_lerp_lut"] = rng.integers(-128, 128, (channels, knots))
            tables[f"{mlp}_psa_2_lerp_lut"] = rng.integers(-128, 128, (hidden, knots))
    stage("classifier_linear", classes, channels)
    return arrays, tables
