"""Files of networks: what an earlier version saved is still read; what is damaged is named, and never used."""

import json
import random
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from conftest import ROOT

import sepcl_keras  # noqa: F401  whose classes Keras then knows
from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder.embedding import load_encoder
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.separation.separate import load_separator

SAVED = ROOT / "tests" / "saved"
PROGRAM = """
import json, sys
import numpy as np
import keras
import sepcl_keras

network = keras.saving.load_model(sys.argv[1])
outputs = network(np.array(json.loads(sys.argv[2]), "float32"))
print(json.dumps(keras.ops.convert_to_numpy(outputs).tolist()))
"""


@pytest.mark.parametrize("name", ["separator", "encoder"])
def test_a_frozen_network_in_a_model_of_a_readers_own_stays_frozen_when_it_is_loaded(name, tmp_path):
    """Keras tells a network's constructor that it is frozen, before its layers are there."""
    network = keras.saving.load_model(SAVED / f"{name}.keras")
    network.trainable = False
    shape = (160,) if name == "separator" else (96, 64)
    model = keras.Sequential([keras.Input(shape), network, keras.layers.Dense(2)])
    assert len(model.trainable_variables) == 2
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [variable.path for variable in again.trainable_variables] == [v.path for v in again.layers[-1].variables]


FREEZES = {
    "encoder": (
        lambda n: [n.bn0, n.blocks[0], n.blocks[1].conv2, n.blocks[2].bn1],
        ["bn0", "conv_block1/", "conv_block2/conv2", "conv_block3/bn1"],
    ),
    "separator": (
        lambda n: [n.encoder, n.decoder, n.blocks[0].up, n.blocks[1], n.blocks[2].down],
        ["encoder", "decoder", "block_0/up", "block_1/", "block_2/down"],
    ),
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a reader's model"])
@pytest.mark.parametrize("name", FREEZES)
def test_single_layers_that_are_frozen_stay_frozen_when_a_network_is_loaded(name, inside, tmp_path):
    """By hand: the weights of these layers are missing among those that are trained, and all others are there."""
    chosen, places = FREEZES[name]
    network = keras.saving.load_model(SAVED / f"{name}.keras")
    everything = [variable.path.split("/", 1)[1] for variable in network.trainable_variables]
    expected = [path for path in everything if not path.startswith(tuple(places))]
    assert 0 < len(expected) < len(everything)
    for layer in chosen(network):
        layer.trainable = False
    model, load = network, LOADERS[name][0]
    if inside:
        shape, load = (160,) if name == "separator" else (96, 64), keras.saving.load_model
        model = keras.Sequential([keras.Input(shape), network])
    model.save(tmp_path / "model.keras")
    again = load(tmp_path / "model.keras")
    found = again.layers[-1] if inside else again
    assert [variable.path.rsplit(f"{found.name}/", 1)[-1] for variable in found.trainable_variables] == expected
    assert len(again.trainable_variables) == len(expected)
    assert not any(layer.trainable for layer in chosen(found))
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again.save(tmp_path / "twice.keras")
    assert len(load(tmp_path / "twice.keras").trainable_variables) == len(expected)


def test_a_layer_that_is_trained_in_a_frozen_one_is_told_apart(tmp_path):
    """Its statistics still move, though its weights do not."""
    network = keras.saving.load_model(SAVED / "encoder.keras")
    network.blocks[0].trainable = False
    network.blocks[0].bn1.trainable = True
    network.save(tmp_path / "model.keras")
    block = load_encoder(tmp_path / "model.keras").blocks[0]
    flags = [layer.trainable for layer in (block, block.conv1, block.bn1, block.bn2)]
    assert flags == [False, False, True, False]


@pytest.mark.parametrize("frozen", [["nobody"], 3, [[]], {"a": 1}])
def test_frozen_layers_that_are_none_are_one_sentence(frozen, tmp_path):
    with zipfile.ZipFile(SAVED / "encoder.keras") as old, zipfile.ZipFile(tmp_path / "odd.keras", "w") as new:
        for item in old.namelist():
            content = old.read(item)
            if item == "config.json":
                config = json.loads(content)
                config["config"]["frozen"] = frozen
                content = json.dumps(config)
            new.writestr(item, content)
    with pytest.raises(BadInput, match="odd.keras: expected a whole .keras file of a CNN14") as caught:
        load_encoder(tmp_path / "odd.keras")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("separator", np.sin(np.arange(160) * 0.37)[None]),
        ("encoder", np.sin(np.arange(96 * 64).reshape(1, 96, 64) * 0.013)),
    ],
)
def test_a_file_saved_before_gives_the_same_after(name, inputs):
    """By Keras, with nothing but the package imported, and none of its classes named."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(SAVED / f"{name}.keras")]
    done = subprocess.run([*command, json.dumps(inputs.round(7).tolist())], capture_output=True, text=True, check=True)
    expected = json.loads((SAVED / "outputs.json").read_text())[name]
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, rtol=1e-4, atol=1e-6)


LOADERS = {"separator": (load_separator, "TDCNPlusPlus"), "encoder": (load_encoder, "CNN14")}


@pytest.mark.parametrize("name", LOADERS)
def test_bits_turned_or_an_end_cut_off_are_found_or_change_nothing(name, tmp_path):
    load, kind = LOADERS[name]
    whole, draw = (SAVED / f"{name}.keras").read_bytes(), random.Random(0)
    expected = load(SAVED / f"{name}.keras").get_weights()
    with zipfile.ZipFile(SAVED / f"{name}.keras") as archive:
        weights = archive.getinfo("model.weights.h5").header_offset + 2_000
    damaged = [whole[: draw.randrange(len(whole))] for _ in range(10)]
    for place in [weights, *(draw.randrange(len(whole)) for _ in range(30))]:
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
    refused = 0
    for content in damaged:
        (tmp_path / "damaged.keras").write_bytes(content)
        try:
            found = load(tmp_path / "damaged.keras").get_weights()
        except BadInput as error:
            assert f"damaged.keras: expected a whole .keras file of a {kind}, but" in str(error)
            assert "\n" not in str(error)
            refused += 1
        else:  # a bit that tells when the file was made, for instance
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert refused > 30


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    "config",
    ["[" * 100_000, "[]", "null", "3", "{}", '{"registered_name": []}', '{"registered_name": "%s", "config": 3}', "\\"],
    ids=lambda config: config[:40],
)
def test_a_config_that_is_none_is_one_sentence(name, config, tmp_path):
    load, kind = LOADERS[name]
    with zipfile.ZipFile(SAVED / f"{name}.keras") as old, zipfile.ZipFile(tmp_path / "odd.keras", "w") as new:
        for item in old.namelist():
            content = config.replace("%s", f"sepcl_keras>{kind}") if item == "config.json" else old.read(item)
            new.writestr(item, content)
    with pytest.raises(BadInput, match=f"odd.keras: .*expected a (whole .keras file of a )?{kind}") as caught:
        load(tmp_path / "odd.keras")
    assert "\n" not in str(caught.value)


def test_a_network_of_the_other_kind_is_refused():
    with pytest.raises(BadInput, match="encoder.keras: holds sepcl_keras>CNN14; expected a TDCNPlusPlus"):
        load_separator(SAVED / "encoder.keras")
    with pytest.raises(BadInput, match="separator.keras: holds sepcl_keras>TDCNPlusPlus; expected a CNN14"):
        load_encoder(SAVED / "separator.keras")


def test_an_encoder_of_before_recipes_were_kept_takes_what_it_was_trained_on():
    with zipfile.ZipFile(SAVED / "encoder.keras") as archive:
        assert "recipe" not in json.loads(archive.read("config.json"))["config"]
    assert load_encoder(SAVED / "encoder.keras").recipe == "vggish"


def test_an_encoder_of_another_sample_rate_is_refused_and_ours_is_in_the_file(tmp_path):
    encoder = CNN14(8, width=1)
    encoder.build((None, 96, 64))
    encoder.save(tmp_path / "ours.keras")
    with zipfile.ZipFile(tmp_path / "ours.keras") as ours, zipfile.ZipFile(tmp_path / "other.keras", "w") as other:
        for name in ours.namelist():
            content = ours.read(name)
            if name == "config.json":
                config = json.loads(content)
                assert config["config"]["sample_rate"] == 16_000
                config["config"]["sample_rate"] = 32_000
                content = json.dumps(config)
            other.writestr(name, content)
    assert load_encoder(tmp_path / "ours.keras").sample_rate == 16_000
    with pytest.raises(BadInput, match="sample_rate=32000: expected 16000, of the log-mel 'vggish'"):
        CNN14(8, width=1, sample_rate=32_000)
    with pytest.raises(BadInput, match="other.keras: .*sample_rate=32000: expected 16000") as caught:
        load_encoder(tmp_path / "other.keras")
    assert "\n" not in str(caught.value)
