"""Published C headers: the real ReLU-96 model bit for bit, models of other sizes, and damaged files."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from bittrue.models.formats.headers import PARAMETERS, SAMPLES, TABLES, read, read_samples
from bittrue.sim.errors import BittrueError
from tests.helpers.header_models import random_model, text

PUBLISHED = Path(
    os.environ.get("BITTRUE_PUBLISHED", Path(__file__).parents[2] / ".." / "shared" / "data" / "psa-relu-96")
)
needs_published = pytest.mark.skipif(
    not (PUBLISHED / PARAMETERS).exists(),
    reason=f"the published ReLU-96 headers are not in {PUBLISHED}; name their folder in BITTRUE_PUBLISHED",
)


# -- the integer pipeline, written directly from the published equations ----------------------------------------
def pipeline(arrays, tables, x):
    """The published integer pipeline for one image `[tokens, features]`: boundary tensors and logits."""

    def rs(a, s):
        return ((a >> (s - 1)) >> 1) + ((a >> (s - 1)) & 1)

    def clip(a):
        return np.clip(a, -128, 127)

    def lin(x, name):
        return clip(rs(x @ arrays[f"{name}_w"].T, arrays[f"{name}_s"]) + arrays[f"{name}_b"])

    def aff(x, name):
        return clip(rs(x * arrays[f"{name}_w"], arrays[f"{name}_s"]) + arrays[f"{name}_b"])

    def psa(x, name):
        lut = tables[name]
        step = 256 // lut.shape[1]
        y = np.empty_like(x)
        for index in np.ndindex(x.shape):
            m, rest = divmod(int(x[index]) + 128, step)
            left = int(lut[index[1], m])
            right = int(lut[index[1], min(m + 1, lut.shape[1] - 1)])
            y[index] = left + ((right - left) * rest + step // 2) // step
        return y

    x = lin(x.astype(np.int64), "embed_linear")
    boundaries = [x]
    for i in range(sum(name.endswith("token_mixer_linear_w") for name in arrays)):
        token, mlp = f"blocks_{i}_token_mixer", f"blocks_{i}_mlp"
        u = lin(aff(x, f"{token}_affine_1").T, f"{token}_linear").T
        y = clip(aff(u, f"{token}_affine_2") + aff(x, f"{token}_res_affine"))
        if tables:
            z = psa(lin(psa(y, f"{mlp}_psa_1_lerp_lut"), f"{mlp}_linear_1"), f"{mlp}_psa_2_lerp_lut")
        else:
            z = np.maximum(lin(y, f"{mlp}_linear_1"), 0)
        x = clip(lin(z, f"{mlp}_linear_2") + aff(y, f"{mlp}_res_affine"))
        boundaries.append(x)
    pooled = rs(x.sum(axis=0), int(np.log2(len(x))))
    return boundaries, lin(pooled[None], "classifier_linear")[0]


def write(folder: Path, arrays, tables=None) -> Path:
    (folder / PARAMETERS).write_text(text(arrays))
    if tables:
        (folder / TABLES).write_text(text(tables))
    return folder


SMALL = {"blocks": 1, "tokens": 4, "features": 3, "channels": 5, "hidden": 6, "classes": 2}


@pytest.fixture
def small():
    return random_model(np.random.default_rng(0), **SMALL)


# -- equality -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def program():
    return read(PUBLISHED)


@pytest.fixture(scope="module")
def samples():
    return read_samples(PUBLISHED)


@needs_published
class TestPublished:
    def test_boundaries_and_logits_equal(self, program, samples):
        assert samples.input.shape == (8, 64, 48)
        assert len(samples.boundaries) == len(program.meta["boundaries"]) == 5
        trace = program.trace(samples.input)
        for name, expected in zip(program.meta["boundaries"], samples.boundaries, strict=True):
            np.testing.assert_array_equal(trace.tensors[name], expected, err_msg=name)
        np.testing.assert_array_equal(trace.tensors[program.result], samples.output)

    def test_fast_and_reference_equal(self, program, samples):
        np.testing.assert_array_equal(program(samples.input), samples.output)
        np.testing.assert_array_equal(program.reference(samples.input), samples.output)

    def test_residual_bias_matters(self, program):
        assert np.count_nonzero(program["block0.token.residual"].requantize.bias) == 1

    def test_one_altered_weight_is_seen(self, samples, tmp_path):
        source = (PUBLISHED / PARAMETERS).read_text()
        start = source.index("{", source.index("blocks_2_mlp_linear_1_w"))
        first = re.compile(r"-?\d+").search(source, start)
        changed = source[: first.start()] + str(int(first[0]) ^ 64) + source[first.end() :]
        (tmp_path / PARAMETERS).write_text(changed)
        assert (read(tmp_path)(samples.input) != samples.output).any()


@pytest.mark.parametrize(
    "sizes",
    [
        {"blocks": 1, "tokens": 2, "features": 1, "channels": 1, "hidden": 1, "classes": 1},
        {"blocks": 2, "tokens": 16, "features": 12, "channels": 10, "hidden": 20, "classes": 7},
        {"blocks": 3, "tokens": 8, "features": 5, "channels": 24, "hidden": 6, "classes": 3},
        {"blocks": 11, "tokens": 4, "features": 3, "channels": 4, "hidden": 2, "classes": 2},
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)
@pytest.mark.parametrize("knots", [None, 64, 16, 256], ids=lambda k: f"lerp{k}" if k else "relu")
def test_other_sizes(sizes, knots, tmp_path):
    rng = np.random.default_rng([sizes["blocks"], knots or 0])
    arrays, tables = random_model(rng, **sizes, knots=knots)
    program = read(write(tmp_path, arrays, tables))
    assert program.meta["nonlinearity"] == ("lerp_psa" if knots else "relu")
    x = rng.integers(-128, 128, (3, sizes["tokens"], sizes["features"])).astype(np.int8)
    trace = program.trace(x)
    for image in range(len(x)):
        boundaries, logits = pipeline(arrays, tables, x[image])
        for name, expected in zip(program.meta["boundaries"], boundaries, strict=True):
            np.testing.assert_array_equal(trace.tensors[name][image], expected, err_msg=name)
        np.testing.assert_array_equal(trace.tensors[program.result][image], logits)
    np.testing.assert_array_equal(program(x), program.reference(x))
    assert len({len(np.unique(v)) for v in trace.tensors.values()}) > 1 or sizes["channels"] == 1


def test_samples_are_read_back(tmp_path):
    rng = np.random.default_rng(3)
    arrays = {
        "samples_input": rng.integers(-128, 128, (2, 4, 3)),
        "samples_inter_0": rng.integers(-128, 128, (2, 4, 5)),
        "samples_inter_1": rng.integers(-128, 128, (2, 4, 5)),
        "samples_output": rng.integers(-128, 128, (2, 7)),
    }
    (tmp_path / SAMPLES).write_text(text(arrays))
    samples = read_samples(tmp_path)
    np.testing.assert_array_equal(samples.input, arrays["samples_input"])
    np.testing.assert_array_equal(samples.boundaries[1], arrays["samples_inter_1"])
    np.testing.assert_array_equal(samples.output, arrays["samples_output"])
    assert samples.input.dtype == np.int8


def test_comments_and_spacing_do_not_matter(small, tmp_path):
    arrays, _ = small
    plain = read(write(tmp_path, arrays))
    loose = text(arrays).replace(" = \n{", "  =\n\t{ /* first, {1} */ ").replace("};", "} ; // done; const\n")
    (tmp_path / PARAMETERS).write_text(loose)
    assert read(tmp_path).sha256 == plain.sha256


# -- bad input ----------------------------------------------------------------------------------------------
def test_cut_anywhere_is_refused(small, tmp_path):
    arrays, _ = small
    whole = text(arrays)
    for length in range(0, whole.rindex("#endif") + 5, 23):
        (tmp_path / PARAMETERS).write_text(whole[:length])
        with pytest.raises(BittrueError, match=PARAMETERS) as refusal:
            read(tmp_path)
        assert "array" in str(refusal.value)


def test_cut_inside_an_array_names_it(small, tmp_path):
    arrays, _ = small
    whole = text(arrays)
    middle = whole.index("{", whole.index("blocks_0_mlp_linear_1_w")) + 20
    (tmp_path / PARAMETERS).write_text(whole[:middle])
    with pytest.raises(BittrueError, match="array blocks_0_mlp_linear_1_w is cut"):
        read(tmp_path)


def test_every_array_is_needed_and_named(tmp_path):
    arrays, tables = random_model(np.random.default_rng(0), **SMALL, knots=4)
    for name in arrays | tables:
        write(tmp_path, {k: v for k, v in arrays.items() if k != name}, {k: v for k, v in tables.items() if k != name})
        with pytest.raises(BittrueError, match=f"array {name} is missing"):
            read(tmp_path)


def test_every_wrong_dimension_is_named(small, tmp_path):
    arrays, _ = small
    for name, values in arrays.items():
        write(tmp_path, arrays | {name: np.concatenate([values, values[:1]])})
        with pytest.raises(BittrueError, match=rf"array {name.rsplit('_', 1)[0]}_[wbs] has dimensions"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("embed_linear_w", 128, r"array embed_linear_w holds .*128, outside its type ap_int<8> \(-128..127\)"),
        ("embed_linear_w", -129, "array embed_linear_w holds -129"),
        ("blocks_0_mlp_res_affine_b", 200, "array blocks_0_mlp_res_affine_b holds"),
        ("classifier_linear_s", -1, r"array classifier_linear_s holds -1.*ap_uint<8> \(0..255\)"),
        ("classifier_linear_s", 99, "array classifier_linear_s holds shifts"),
        ("classifier_linear_s", 10**30, "array classifier_linear_s holds something that is no 64-bit integer"),
    ],
)
def test_value_out_of_range_is_named(small, tmp_path, name, value, sentence):
    arrays, _ = small
    changed = arrays[name].astype(object)
    changed.reshape(-1)[1] = value
    write(tmp_path, arrays | {name: changed})
    with pytest.raises(BittrueError, match=sentence):
        read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("embed_linear_w[5][3]", "embed_linear_w[3][5]", "embed_linear_w is declared .3..5. but holds"),
        ("embed_linear_b", "embed_linear_w", "embed_linear_w is declared twice"),
        ("embed_linear_b[5] = \n{", "embed_linear_b[5] = \n{1.5, ", "embed_linear_b"),
        ("embed_linear_b[5] = \n{", "embed_linear_b[5] = \n{x, ", "embed_linear_b has values or braces"),
        ("embed_linear_b[5] = \n{", "embed_linear_b[5] = \n{{", "embed_linear_b has values or braces"),
        ("const ap_int<8> embed_linear_b", "const int embed_linear_b", "after array embed_linear_w, is cut or no"),
        ("const ap_int<8> embed_linear_b", "const ap_int<99> embed_linear_b", "declared with 99 bits"),
        ("blocks_0_mlp_linear_2_w", "blocks_9999_mlp_linear_2_w", "earlier blocks are missing"),
        ("blocks_0_mlp_linear_2_w", "blocks_1_mlp_linear_2_w", "blocks_0_mlp_linear_2_w is missing"),
        ("#include", "const ap_int<8> extra[1] = {1};\n#include", "array extra has no place in this model"),
        ("embed_linear_b", "embed_linear_\u00e9", "not ASCII"),
    ],
)
def test_altered_text_is_refused(small, tmp_path, old, new, sentence):
    whole = text(small[0])
    assert old in whole
    (tmp_path / PARAMETERS).write_text(whole.replace(old, new, 1))
    with pytest.raises(BittrueError, match=sentence):
        read(tmp_path)


def test_tokens_that_a_shift_cannot_average_are_refused(tmp_path):
    arrays, _ = random_model(np.random.default_rng(0), **SMALL | {"tokens": 6})
    with pytest.raises(BittrueError, match="mixes 6 tokens.*power of two"):
        read(write(tmp_path, arrays))


def test_knots_that_are_no_power_of_two_are_refused(tmp_path):
    arrays, tables = random_model(np.random.default_rng(0), **SMALL, knots=65)
    with pytest.raises(BittrueError, match="blocks_0_mlp_psa_1_lerp_lut has 65 knots"):
        read(write(tmp_path, arrays, tables))


def test_folders_without_headers_are_refused(tmp_path):
    with pytest.raises(BittrueError, match="no such folder"):
        read(tmp_path / "absent")
    with pytest.raises(BittrueError, match="quant_params.h: cannot be read"):
        read(tmp_path)


# -- what a compiler would see -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("const ap_int<8> embed_linear_b", "#if 0\nconst ap_int<8> embed_linear_b"),
        ("#include", "#define embed_linear_b embed_linear_w\n#include"),
        ("#include", "#define const\n#include"),
        ("#include", "#define ap_int ap_uint\n#include"),
        ("#include", "  #  undef X\n#include"),
        ("#include", "#ifdef X\n#else\n#include"),
        ("#ifndef PARAMS_H", "#ifndef __cplusplus"),
        ("#ifndef PARAMS_H", "#ifndef OTHER_H"),
        ("#endif", "#endif\n#if 0\n#endif"),
        ("#endif", "#endif\nconst ap_int<8> more[1] = {1};"),
        ("#include", "// hidden \\\n#include"),
        ("#include", "// hidden ??/\n#include"),
        ("#include", "// hidden \r#include"),
        ("#include", "%:if 0\n#include"),
        ("#include <ap_int.h>", "#include <a/*b>"),
        ("#include <ap_int.h>", "#include NAME"),
        ("#include", '_Pragma("once")\n#include'),
        ("#include", "#line 5\n#include"),
        ("#include", "#pragma pack(1)\n#include"),
        ("#include", "/* open\n#include"),
        ("#include", "\x0b#if 0\n#include"),
    ],
)
def test_directives_that_could_change_an_array_are_refused(small, tmp_path, old, new):
    whole = text(small[0])
    assert old in whole
    (tmp_path / PARAMETERS).write_bytes(whole.replace(old, new, 1).encode())
    with pytest.raises(BittrueError, match=PARAMETERS):
        read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("#include", "#pragma once\n#include"),
        ("#include <ap_int.h>", '#include "utils/types-1.h"'),
        ("#include", "#define TOKENS 4 // of a sentence\n#include"),
        ("#include", "#pragma HLS interface\n#include"),
        ("#include", "/* #if 0 */ // #define const\n#include"),
        ("#ifndef PARAMS_H", "// published\n\n#ifndef PARAMS_H"),
        ("\n", "\r\n"),
    ],
)
def test_harmless_directives(small, tmp_path, old, new):
    whole = text(small[0])
    (tmp_path / PARAMETERS).write_bytes(whole.encode())
    expected = read(tmp_path).sha256
    (tmp_path / PARAMETERS).write_bytes(whole.replace(old, new, -1 if old == "\n" else 1).encode())
    assert read(tmp_path).sha256 == expected


@pytest.mark.parametrize("value", ["true", "0x1F", "017", "1e2", "1.0", "9" * 5000, "NaN"])
def test_values_that_are_no_decimal_integers(small, tmp_path, value):
    whole = text(small[0])
    changed = re.sub(r"(embed_linear_b\[5\] = \n\{)-?\d+", rf"\g<1>{value}", whole)
    assert changed != whole
    (tmp_path / PARAMETERS).write_text(changed)
    with pytest.raises(BittrueError, match="array embed_linear_b ") as refusal:
        read(tmp_path)
    assert len(str(refusal.value)) < 1000
