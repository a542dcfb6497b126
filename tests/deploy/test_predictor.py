"""What a model says: calibrated, moved to other frequencies, and whether an image is like those it knows."""

import dataclasses
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import hub_mixin
from scipy.special import softmax

from latentry.deploy import predictor as deploying
from latentry.deploy.predictor import Predictor, shares
from latentry.errors import RecipeError, RunError
from latentry.evaluation.evaluate import load_predictions
from latentry.inference import probabilities
from latentry.report.page import model_card, write_report
from latentry.run import Run

NAMES = ("bird", "cat", "deer")


def test_it_says_what_validation_was_told(finished_run, toy_folder):
    predictor = Predictor.load(finished_run)
    run = Run.open(finished_run)
    stored = load_predictions(run)
    answer = predictor.answer(stored["validation_example_images"])
    places = stored["validation_example_positions"]
    expected = probabilities(stored["validation_logits"][places], run.results()["temperature"])
    assert answer.probabilities == pytest.approx(expected, abs=1e-5)
    assert answer.latents.astype(np.float16) == pytest.approx(stored["validation_latents"][places], abs=2e-2)
    assert -10 * np.log10(answer.errors) == pytest.approx(stored["validation_psnr"][places], abs=1e-3)
    usual = predictor.usual(10 ** (-stored["validation_psnr"] / 10))
    assert usual is not None
    assert 0 < (~usual).sum() <= 1 + 0.01 * len(usual)
    assert predictor.config.usual_error is not None
    assert predictor.usual(predictor.config.usual_error * np.array([0.99, 1.01])).tolist() == [True, False]


def test_probabilities_move_to_where_classes_have_other_frequencies(finished_run):
    plain = Predictor.load(finished_run)
    logits = np.random.default_rng(0).normal(size=(50, 3)) * 3
    trained = softmax(logits / plain.config.temperature, axis=1)
    assert plain.probabilities(logits) == pytest.approx(trained)
    moved = Predictor.load(finished_run, prior={"cross": 0.8, "circle": 0.1, "stripes": 0.1})
    expected = trained * np.array([0.1, 0.8, 0.1]) / np.array(plain.config.class_shares)
    assert moved.probabilities(logits) == pytest.approx(expected / expected.sum(axis=1, keepdims=True))
    never = Predictor.load(finished_run, prior={"cross": 0.0})
    assert (never.probabilities(logits)[:, 1] == 0).all()
    assert never.probabilities(logits).sum(axis=1) == pytest.approx(1)


def test_rebalancing_in_training_is_undone(finished_run):
    """By Bayes: a classifier that is right where classes are alike is right again where they are as in the data."""
    predictor = Predictor.load(finished_run)
    config = predictor.config.model_copy(
        update={"class_shares": (0.7, 0.2, 0.1), "trained_shares": (1 / 3, 1 / 3, 1 / 3), "temperature": 1.0}
    )
    generator = np.random.default_rng(1)
    labels = generator.choice(3, 40_000, p=config.class_shares)
    seen = generator.normal(labels, 1.0)
    logits = -((seen[:, None] - np.arange(3)) ** 2) / 2  # the likelihoods: the posterior of classes that are alike
    corrected = Predictor(predictor.network, config).probabilities(logits)
    assert corrected.mean(axis=0) == pytest.approx(config.class_shares, abs=0.01)
    confident = corrected[:, 0] > 0.8
    assert (labels[confident] == 0).mean() == pytest.approx(corrected[confident, 0].mean(), abs=0.01)


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ({}, [0.5, 0.3, 0.2]),
        ({"bird": 0.1}, [0.1, 0.54, 0.36]),
        ({"bird": 0.2, "cat": 0.8}, [0.2, 0.8, 0.0]),
        ({"bird": 0.2, "cat": 0.3, "deer": 0.5}, [0.2, 0.3, 0.5]),
        ({"bird": 0.1 + 0.7, "cat": 0.2 + 1e-16}, [0.8, 0.2, 0.0]),
    ],
)
def test_classes_that_a_prior_does_not_name_divide_the_rest(prior, expected):
    assert shares(NAMES, (0.5, 0.3, 0.2), prior) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prior", "reason"),
    [
        ({"dog": 0.5}, "names 'dog'; the classes are bird, cat, deer"),
        ({"bird": -0.1}, "gives bird -0.1"),
        ({"bird": float("nan")}, "gives bird nan"),
        ({"bird": 0.7, "cat": 0.7}, r"gives all together 1\.4"),
        ({"bird": 0.1, "cat": 0.1, "deer": 0.1}, r"gives all together 0\.3"),
    ],
)
def test_a_prior_that_is_none_is_refused(prior, reason):
    with pytest.raises(RecipeError, match=reason):
        shares(NAMES, (0.5, 0.3, 0.2), prior)


def test_a_folder_without_a_model_is_named(tmp_path, finished_run):
    with pytest.raises(RunError, match="no run folder"):
        Predictor.load(tmp_path / "missing")
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(RunError, match="has no model yet: continue it with"):
        Predictor.load(tmp_path)
    assert dataclasses.is_dataclass(Predictor.load(finished_run / "model").answer(np.zeros((1, 3, 32, 32), np.uint8)))


def test_a_model_folder_goes_round_through_the_hubs_interface(finished_run, tmp_path):
    run = Run.open(finished_run)
    write_report(run)
    predictor = Predictor.from_pretrained(run.model_folder)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    predictor.save_pretrained(tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    for name in ("README.md", "config.json", "model.safetensors"):
        assert (tmp_path / "copy" / name).read_bytes() == (run.model_folder / name).read_bytes()
    again = Predictor.from_pretrained(str(tmp_path / "copy"), prior={"cross": 0.5})
    assert np.array_equal(again.answer(images).latents, predictor.answer(images).latents)
    assert not np.allclose(again.answer(images).probabilities, predictor.answer(images).probabilities)


def test_a_model_is_pushed_to_the_hub_and_loaded_by_its_name(finished_run, tmp_path, monkeypatch):
    class Hub:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, **_):
            return types.SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, repo_id, folder_path, **_):
            shutil.copytree(folder_path, tmp_path / repo_id)

    monkeypatch.setattr(hub_mixin, "HfApi", Hub)
    monkeypatch.setattr(hub_mixin, "hf_hub_download", lambda repo_id, filename, **_: str(tmp_path / repo_id / filename))
    monkeypatch.setattr(deploying, "snapshot_download", lambda repo_id, **_: str(tmp_path / repo_id))
    predictor = Predictor.from_pretrained(Run(finished_run).model_folder)
    predictor.push_to_hub("someone/shapes")
    assert "model.safetensors" in {path.name for path in (tmp_path / "someone" / "shapes").iterdir()}
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    again = Predictor.from_pretrained("someone/shapes")
    assert np.array_equal(again.answer(images).probabilities, predictor.answer(images).probabilities)


def test_the_card_says_what_results_say(finished_run):
    run = Run.open(finished_run)
    card = model_card(run)
    scores = run.results()["validation"]
    assert card.startswith("---\nlibrary_name: latentry\n")
    assert f"| {100 * scores['accuracy']:.1f} % | {100 * scores['balanced_accuracy']:.1f} % |" in card
    row = scores["per_class"][1]
    assert f"| cross | 34 | {100 * row['recall']:.1f} % | {100 * row['precision']:.1f} % |" in card
    assert "the test images have not been opened" in card


def test_a_model_needs_no_network_no_recipe_and_no_pickle(finished_run, tmp_path):
    shutil.copytree(finished_run / "model", tmp_path / "model")
    program = (
        "import socket, pickle, latentry, numpy\n"
        "def refused(*_, **__): raise AssertionError\n"
        "load = latentry.Predictor.from_pretrained\n"
        "socket.socket.connect = pickle.load = pickle.loads = pickle.Unpickler = refused\n"
        "predictor = load('model')\n"
        "print(predictor.answer(numpy.zeros((1, 3, 32, 32), numpy.uint8)).probabilities.sum())\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1)


def test_old_folders_are_answered_as_they_were_and_take_no_prior(finished_run):
    predictor = Predictor.load(finished_run)
    old = predictor.config.model_copy(update={"class_shares": (), "trained_shares": ()})
    logits = np.random.default_rng(0).normal(size=(5, 3))
    expected = softmax(logits / old.temperature, axis=1)
    assert Predictor(predictor.network, old).probabilities(logits) == pytest.approx(expected)
    with pytest.raises(RecipeError, match="which this model doesn't hold"):
        Predictor(predictor.network, old, prior={"cross": 0.5})


@pytest.mark.parametrize(
    "images", [np.zeros((1, 3, 48, 48), np.uint8), np.zeros((1, 3, 32, 32)), np.zeros((0, 3, 32, 32), np.uint8)]
)
def test_images_of_another_kind_are_refused(finished_run, images):
    with pytest.raises(ValueError, match=r"give uint8 of \(N, 3, 32, 32\)"):
        Predictor.load(finished_run).answer(images)


@pytest.mark.parametrize(
    "change",
    [
        {"views": 3},
        {"temperature": 0.0},
        {"class_shares": [0.5, 0.5]},
        {"trained_shares": [1.0]},
        {"image_size": 10**9},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(finished_run, tmp_path, change):
    model = Path(shutil.copytree(finished_run / "model", tmp_path / "model"))
    config = json.loads((model / "config.json").read_text()) | change
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        Predictor.load(model)
