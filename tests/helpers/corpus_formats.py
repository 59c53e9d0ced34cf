"""Every format that is read, for the corpus of damaged files."""

from __future__ import annotations

from bittrue.flow.engine import steps
from bittrue.flow.report import report
from bittrue.hls import project
from bittrue.models.formats import headers
from bittrue.models.fs import sets
from tests.helpers import corpus_models as models
from tests.helpers import corpus_texts as texts
from tests.helpers import damage
from tests.helpers.corpus_kinds import OCTETS, SEALED, Format
from tests.helpers.nir_graphs import small
from tests.helpers.programs import photonic, several, spiking

FORMATS: tuple[Format, ...] = (
    models.program_format("program", models.small_program),
    models.program_format("program, several", several),
    models.program_format("program, light", lambda: photonic(noisy=True)),
    models.program_format("program, spikes", lambda: spiking(halving=False)),
    models.inputs(".npy"),
    models.inputs(".npz"),
    models.nir_format("NIR", small),
    models.nir_format("NIR, conv", models.conv),
    models.nir_format("NIR, hints", models.hinted, "s8"),
    Format(
        "headers",
        models.write_headers,
        models.read_headers,
        {headers.PARAMETERS: models.C_TEXT, headers.TABLES: models.C_TEXT},
        models.headers_say,
    ),
    texts.recipe_format("lerp-psa-digits"),
    texts.recipe_format("fs-swish-mlp-digits"),
    texts.recipe_format("photonic-mlp-digits"),
    Format(
        "neuron set",
        lambda place: sets.PUBLISHED["swish"].save(place / "set.json"),
        texts.read_set,
        {"set.json": (OCTETS, ("values", texts.as_json, False), ("values", texts.as_json, False))},
        texts.set_says,
    ),
    Format(
        "idx",
        texts.write_idx,
        texts.read_idx,
        {"train-images-idx3-ubyte": (OCTETS,), "train-labels-idx1-ubyte.gz": (OCTETS,)},
        texts.idx_says,
    ),
    Format(
        "CIFAR",
        texts.write_cifar,
        texts.read_cifar,
        {"data_batch_1": (OCTETS,), "batches.meta": (OCTETS,)},
        open=frozenset({"bytes"}),
    ),
    Format(
        "network",
        texts.write_network,
        texts.read_network,
        {"network.pt": (SEALED, ("forged network", texts.forged_network, False))},
        open=frozenset({"forged network"}),
    ),
    Format(
        "design",
        texts.write_design,
        texts.read_design,
        {"bittrue_top.json": (*texts.SEALED_JSON, texts.FORGED), "bittrue_top.v": (("Verilog", damage.octets, False),)},
        open=frozenset({"forged values", "Verilog"}),
    ),
    Format(
        "HLS project",
        lambda place: project.write(models.small_program(), place),
        texts.read_project,
        {"project.json": (*texts.SEALED_JSON, texts.FORGED)},
        open=frozenset({"forged values"}),
    ),
    Format("step", texts.stamp, texts.read_stamp, {steps.STAMP: texts.SEALED_JSON}),
    Format(
        "report", texts.write_report, lambda place: report.read(place / report.JSON), {report.JSON: texts.SEALED_JSON}
    ),
)
