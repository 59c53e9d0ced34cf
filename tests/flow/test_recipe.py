"""Recipes: every shipped one is valid and round-trips; every mistake is told with its key, its place and a remedy."""

import pytest
from pydantic import BaseModel

from bittrue.flow.engine import plain_yaml
from bittrue.flow.engine import recipe as recipes
from bittrue.sim.errors import BittrueError


@pytest.mark.parametrize("name", recipes.shipped())
def test_shipped_recipe_is_valid_and_round_trips(name, tmp_path):
    recipe = recipes.load(name)
    assert recipe.name == name
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.to_yaml())
    assert recipes.load(copy) == recipe


def test_the_recipes_are_there():
    expected = {f"{kind}-{data}" for kind in ("lerp-psa", "relu") for data in ("digits", "fashion-mnist")}
    spiking = {f"{kind}-{on}" for kind in ("fs", "fs-swish") for on in ("mlp-digits", "resmlp-fashion-mnist")}
    photonic = {"photonic-mlp-digits", "photonic-mlp-fashion-mnist"}
    assert set(recipes.shipped()) >= expected | spiking | photonic


def test_twins_differ_only_in_the_network():
    """The comparison with ReLU at twice the hidden size is made in the same budget."""
    for data in ("digits", "fashion-mnist"):
        psa, relu = recipes.load(f"lerp-psa-{data}"), recipes.load(f"relu-{data}")
        assert (psa.network.hidden_factor, relu.network.hidden_factor) == (1, 2)
        assert psa.network.embed == relu.network.embed
        assert psa.part("dataset", "train", "quantize", "qat") == relu.part("dataset", "train", "quantize", "qat")


def test_parts_are_sections_or_keys_of_them():
    recipe = recipes.load("nern-resnet8-fashion-mnist", ["nern.hidden_layer_size=7", "nern.keep=[stem]"])
    assert recipe.part("name", "nern.keep", "nern.embeddings.base") == {
        "name": "nern-resnet8-fashion-mnist", "nern.keep": ["stem"], "nern.embeddings.base": 0.76,
    }  # fmt: skip


def test_overrides_are_applied_in_order():
    recipe = recipes.load("lerp-psa-digits", ["train.epochs=3", "train.epochs=4", "synth.targets=[ecp5-25k, xilinx-7]"])
    assert recipe.train.epochs == 4
    assert recipe.synth.targets == ("ecp5-25k", "xilinx-7")
    assert recipes.load("lerp-psa-digits", ["rtl.interval=512"]).rtl.interval == 512
    assert recipes.load("lerp-psa-digits", ["train.lr=2e-3"]).train.lr == 2e-3


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.epohs=3", r"override 'train.epohs=3': unknown key 'train.epohs'; did you mean 'train.epochs'\?"),
        ("trian.epochs=3", r"override 'trian.epochs=3': unknown key 'trian'; did you mean 'train'\?"),
        ("train.epochs=0", r"override 'train.epochs=0': train.epochs = 0 is not usable: .* greater than or equal to 1"),
        ("train.epochs=many", "train.epochs = 'many' is not usable: .*integer"),
        ("dataset.name=digts", "dataset.name = 'digts' is not usable: .*did you mean 'digits'"),
        ("network.nonlinearity=rely", "did you mean 'relu'"),
        ("verify.idle=1", "verify.idle = 1 is not usable: .*less than 1"),
        ("train.epochs", "write key.sub=value, for example train.epochs=5"),
        ("=3", "write key.sub=value"),
        ("train.epochs=[", "its value is not YAML"),
        ("system.kind=x", "'system' is a value, not a section, so it has no 'kind'"),
        ("system=lerp-pas", r"unknown system 'lerp-pas'; did you mean 'lerp-psa'\?"),
        ("rtl=5", "rtl = 5 is not usable"),
        ("name=a/b", "name = 'a/b' is not usable"),
        ("synth.targets=[ecp5-58k]", "ecp5-58k.*did you mean 'ecp5-85k'"),
        ("rtl.device=ecp5-58k", "ecp5-58k.*did you mean 'ecp5-85k'"),
        ("rtl.architecture=event", "no architecture of an operation is named 'event'; did you mean 'events'"),
        ("rtl.architecture={mix: paralel}", "no architecture of an operation is named 'paralel'; did you mean"),
        ("rtl.architecture=3", "rtl.architecture"),
    ],
)
def test_bad_override_is_refused(override, sentence):
    with pytest.raises(BittrueError, match=sentence):
        recipes.load("lerp-psa-digits", [override])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("system: lerp-psa\nepochs: 3\n", "unknown key 'epochs'; .*a recipe has"),
        ("dataset: {name: digits}\n", "the key 'system' is missing"),
        ("- a\n- b\n", "holds a list; expected keys"),
        ("a: [\n", "not YAML"),
        ("", "holds a NoneType"),
        ("system: [lerp-psa]\n", "unknown system"),
    ],
)
def test_bad_file_is_refused_with_its_path(content, sentence, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(BittrueError, match=sentence) as caught:
        recipes.load(path)
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(("faults", "more"), [(3, ""), (4, "; and 1 more"), (30, "; and 27 more")])
def test_the_first_of_many_faults_are_told(faults, more, tmp_path):
    path = tmp_path / "mine.yaml"
    lines = [f"  strange{k}: 1" for k in range(faults)]
    path.write_text("\n".join(["system: lerp-psa", "dataset: {name: digits}", "train:", *lines, ""]))
    with pytest.raises(BittrueError) as caught:
        recipes.load(path)
    told = str(caught.value)
    assert told.count("unknown key") == 3
    assert told.endswith(more or "augment")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(BittrueError, match=r"mine\.yaml.*(cannot be read|not YAML)"):
        recipes.load(path)


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(BittrueError, match=r"'lerp-psa-digit': did you mean 'lerp-psa-digits'\?.*relu-fashion-mnist"):
        recipes.load("lerp-psa-digit")


class Part(BaseModel):
    epochs: int


@pytest.mark.parametrize(
    ("key", "override", "told"),
    [
        ("train", "train", True),
        ("train.epochs", "train", True),
        ("train", "train.epochs", True),
        ("train", "training", False),
        ("training", "train", False),
        ("train.epochs", "train.epochs_more", False),
        ("train.epochs", "other", False),
    ],
)
def test_a_problem_is_told_of_the_override_that_has_the_key(key, override, told):
    problem = {"loc": tuple(key.split(".")), "type": "missing", "msg": "Field required"}
    words = recipes._explain(Part, problem, "recipe r.yaml", {override: f"{override}=1"})
    assert words.startswith(f"override '{override}=1'" if told else "recipe r.yaml")


# -- what YAML could make of a text --------------------------------------------------------------------
HEAD = "system: lerp-psa\n"


@pytest.mark.parametrize("number", [(1 << 64) - 1, -(1 << 63), 0, -1])
def test_whole_numbers_of_64_bits_are_what_they_are(number):
    for text in (str(number), hex(number)):
        assert plain_yaml.load(f"x: {text}\n") == {"x": number}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train:\n  epochs: 150\ntrain:\n  lr: 1\n", "it has the key 'train' twice; give it once; line 4"),
        ("train: {epochs: 150, epochs: 3}\n", "it has the key 'epochs' twice"),
        ("description: " + "[" * 500 + "\n", "a nesting of more than 20"),
        ("description: " + "[" * 500 + "]" * 500 + "\n", "a nesting of more than 20"),
        (f"train: {{seed: {'1' * 5000}}}\n", "a number of more than 64 bits"),
        (f"train: {{seed: {1 << 64}}}\n", "a number of more than 64 bits"),
        (f"train: {{seed: {(1 << 64) + 1}}}\n", "a number of more than 64 bits"),
        (f"train: {{seed: -{(1 << 63) + 1}}}\n", "a number of more than 64 bits"),
        (f"train: {{seed: {hex(1 << 64)}}}\n", "a number of more than 64 bits"),
        ("train: {lr: 1e999}\n", "a number that is too large"),
        ("description: !!timestamp 2020-01-01\n", "the tag !!timestamp"),
        ("description: !!python/name:os.system x\n", "the tag !!python/name"),
        ("description: &a x\nname: *a\n", "an anchor or alias"),
        ("? [a, b]\n: 1\n", "a key that is no name"),
        ("x" * (1 << 18), "characters, and at most"),
        ("synth: {frequency_mhz: .inf}\n", "synth.frequency_mhz = inf is not usable: input should be a finite number"),
        ("synth: {frequency_mhz: .nan}\n", "synth.frequency_mhz = nan is not usable"),
        ("network: {blocks: true}\n", "network.blocks = True is not usable: input should be a valid integer"),
        ("train: {epochs: '5'}\n", "train.epochs = '5' is not usable: input should be a valid integer"),
        ("train: {epochs: 5.0}\n", "train.epochs = 5.0 is not usable"),
        ("train: {epochs: 017}\n", "train.epochs = '017' is not usable"),
        ("train: {epochs: 1:30}\n", "train.epochs = '1:30' is not usable"),
        ("train: {epochs: 2020-01-01}\n", "train.epochs = '2020-01-01' is not usable"),
        ("name: 5\n", "name = 5 is not usable: input should be a valid string"),
    ],
)
def test_what_yaml_would_turn_into_something_else_is_refused(text, sentence, tmp_path):
    (tmp_path / "mine.yaml").write_text(HEAD + text)
    with pytest.raises(BittrueError, match=f"recipe .*mine.yaml.*{sentence}"):
        recipes.load(tmp_path / "mine.yaml")
    with pytest.raises(BittrueError) as refusal:
        recipes.load(tmp_path / "mine.yaml")
    assert len(str(refusal.value)) < 1500


def test_what_may_stand_in_a_recipe(tmp_path):
    """The neighbours of what is refused."""
    nested = "[" * 19 + "]" * 19
    (tmp_path / "mine.yaml").write_text(
        HEAD + "description: 2020-01-01\ntrain: {lr: 1e-3, seed: 18446744073709551615, weight_decay: 0}\n"
        "synth: {frequency_mhz: 12.5}\n"
    )
    recipe = recipes.load(tmp_path / "mine.yaml")
    assert (recipe.description, recipe.train.lr, recipe.train.seed) == ("2020-01-01", 1e-3, (1 << 64) - 1)
    assert (recipe.synth.frequency_mhz, recipe.train.weight_decay) == (12.5, 0.0)
    assert plain_yaml.load("a: 1_000\nb: -0x1F\nc: .5\nd: 1.e3\ne: ~\nf: yes\ng: -.inf\nh: 0") == {
        "a": 1000, "b": -31, "c": 0.5, "d": 1000.0, "e": None, "f": True, "g": float("-inf"), "h": 0
    }  # fmt: skip
    assert plain_yaml.load(nested) is not None
    assert recipes.load("lerp-psa-digits", ["train.lr=1e-5"]).train.lr == 1e-5
    with pytest.raises(BittrueError, match="override 'train.epochs=true': train.epochs = True is not usable"):
        recipes.load("lerp-psa-digits", ["train.epochs=true"])
