"""Encoders that come from another run."""

from pathlib import Path

import pytest
import torch

from latentry.data import load_train
from latentry.errors import RecipeError, RunError
from latentry.evaluation.calibration import borrowed_calibration
from latentry.models.network import build_network
from latentry.models.saved import load_model
from latentry.pipeline import train
from latentry.recipe import load_recipe
from latentry.report.page import model_card
from latentry.run import Run
from latentry.training.transfer import copy_encoder

SETTINGS = {
    "pretrain.min_steps_per_epoch": 0,
    "classify.min_steps_per_epoch": 0,
    "data.limit": {},
    "pretrain.batch_size": 32,
    "classify.batch_size": 32,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def lent(toy_folder, tmp_path_factory) -> Run:
    """A run of an autoencoder alone."""
    settings = SETTINGS | {"data.source": str(toy_folder), "pretrain.max_epochs": 1, "classify.max_epochs": 0}
    settings |= {"classify.reconstruction_weight": 0}
    return train(load_recipe("quick", settings), tmp_path_factory.mktemp("lender") / "lender")


def borrowing(lent: Run, toy_folder, **changes):
    settings = SETTINGS | {"data.source": str(toy_folder), "pretrain.max_epochs": 0, "classify.max_epochs": 1}
    settings |= {"pretrain.encoder_from": str(lent.folder), "classify.reconstruction_weight": 0}
    return load_recipe("quick", settings | changes)


def test_an_autoencoder_alone_has_reconstructions_and_no_classes(lent):
    results = lent.results()
    assert (results["trained_decoder"], results["trained_classifier"]) == (True, False)
    assert results["flops"]["classify"] == 0
    assert results["validation"]["psnr"] > 5
    assert results["validation"]["accuracy"] is None
    assert results["validation"]["per_class"] is None
    assert results["temperature"] == 1
    assert "rebalanced" not in model_card(lent)


def test_layers_are_copied_up_to_the_one_named(lent, toy_folder, tmp_path):
    changes = {"pretrain.encoder_until": "block1", "classify.freeze": "block1"}
    run = train(borrowing(lent, toy_folder, **changes), tmp_path / "run")
    (own, _), (pretrained, _) = load_model(run.model_folder), load_model(lent.model_folder)
    for name, layer in own.encoder.named_children():
        source = pretrained.encoder.get_submodule(name).state_dict()
        same = all(torch.equal(value, source[key]) for key, value in layer.state_dict().items())
        assert same is (name in ("stem", "block1"))
    results = run.results()
    assert results["flops"]["pretrain"] == lent.results()["flops"]["pretrain"] > 0
    assert results["seconds"]["pretrain"] == lent.results()["seconds"]["pretrain"]
    assert results["pretrained_validation_psnr"] == lent.results()["pretrained_validation_psnr"]
    assert run.recipe().pretrain.encoder_from == str(lent.folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.fold": 1}, r"was pretrained on other images or another split \(held-out, fold 0, split_seed 0\)"),
        ({"data.standing": "all-train"}, r"was pretrained on other images or another split"),
        ({"model.autoencoder": "seed1"}, r"has model.autoencoder = 'light', and this recipe has 'seed1'"),
        ({"pretrain.encoder_from": "nowhere"}, r"encoder_from: no run folder .*nowhere: `latentry train` makes one"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(lent, toy_folder, tmp_path, changes, words):
    with pytest.raises(RunError, match=words):
        train(borrowing(lent, toy_folder, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_of_other_widths_is_refused_by_its_setting(lent, toy_folder, tmp_path):
    recipe = lent.recipe().changed({"model.autoencoder": "record", "classify.max_epochs": 0})
    wide = {"model.autoencoder": "record", "model.classifier": "record-top", "model.record_widths": (16, 16, 16)}
    lender_run = train(recipe.changed({"model.record_widths": (8, 16, 16)}), tmp_path / "narrow")
    words = r"has first two model.record_widths = \(8, 16\), and this recipe has \(16, 16\): name a run with the same"
    with pytest.raises(RunError, match=words):
        train(borrowing(lender_run, toy_folder, **wide), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_layer_that_is_not_there_and_a_run_that_pretrained_nothing_are_refused(lent, toy_folder, tmp_path):
    with pytest.raises(RecipeError, match=r"pretrain\.encoder_until = 'norm4' is no layer of the encoder"):
        train(borrowing(lent, toy_folder, **{"pretrain.encoder_until": "norm4"}), tmp_path / "run")
    changes = {"pretrain.encoder_from": ""}
    plain = train(borrowing(lent, toy_folder, **changes), tmp_path / "plain")
    with pytest.raises(RunError, match=r"pretrained nothing: name a run that did"):
        train(borrowing(plain, toy_folder), tmp_path / "run")


@pytest.mark.parametrize(
    ("lender", "reader", "layer", "psnr"),
    [
        ("seed1-ae-0", "seed1-frozen11", "4", 26.50),
        ("seed1-ae-augmented-0", "seed1-frozen-augmented", "7", 16.74),
    ],
)
def test_the_committed_encoders_are_whole(lender, reader, layer, psnr):
    run = Run.open(Path(__file__).parents[2] / "docs" / "results" / "encoders" / lender)
    recipe = load_recipe(reader, {"pretrain.encoder_from": str(run.folder)})
    encoder = (network := build_network(recipe.model, 32, 10, torch.zeros(3), torch.ones(3))).encoder
    before = encoder.get_submodule(f"conv{layer}.0").weight.clone()
    copy_encoder(run, network, recipe.pretrain.encoder_until)
    assert not torch.equal(encoder.get_submodule(f"conv{layer}.0").weight, before)
    assert encoder.get_submodule(f"norm{layer}").running_var.isfinite().all()
    assert run.results()["pretrained_validation_psnr"] == pytest.approx(psnr, abs=0.01)


def test_a_temperature_is_lent_to_what_is_trained_alike_on_the_same_images(finished_run, toy_folder, toy_images):
    own = Run.open(finished_run).recipe()
    recipe = own.changed({"data.standing": "all-train", "evaluate.temperature_from": str(finished_run)})
    images = load_train(own.data)
    assert borrowed_calibration(recipe, images).temperature == Run.open(finished_run).results()["temperature"]
    other = recipe.changed({"classify.class_weight": "balanced"})
    differently_asked = recipe.changed({"evaluate.views": 6})
    for asking, at_hand in ((other, images), (differently_asked, images), (recipe, toy_images)):
        with pytest.raises(RunError, match="is no held-out run of quick"):
            borrowed_calibration(asking, at_hand)
