"""The seeds' systems against the libraries that they were written in: layers, updates, callbacks, settings."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from latentry.data.cifar10 import CLASS_NAMES
from latentry.data.imageset import ImageSet
from latentry.data.split import make_split
from latentry.models.autoencoder import seed1_decoder, seed1_encoder, seed2_encoder
from latentry.models.blocks import keras_norm
from latentry.models.classifier import Seed2Classifier, cnn_classifier, dense_classifier
from latentry.models.network import build_network
from latentry.recipe import load_recipe
from latentry.settings import Model, Stage
from latentry.training.callbacks import Stopping
from latentry.training.job import Job
from latentry.training.optimizers import build_optimizer, build_plateau

HERE = Path(__file__).parent
KERAS = np.load(HERE / "keras_seed1.npz")
SPECIFICATION = importlib.util.spec_from_file_location("keras_seed1", HERE / "keras_seed1.py")
made_by = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(made_by)

AUTOENCODERS = ("seed1-ae", "seed1-ae-augmented")
ENCODERS = {
    "seed1-frozen11-augmented": ("runs/seed1-ae-augmented-0", "norm4", "norm4"),
    "seed1-frozen-augmented": ("runs/seed1-ae-augmented-0", "", "encoder"),
    "seed1-dense-augmented": ("runs/seed1-ae-augmented-0", "", "encoder"),
    "seed1-frozen11": ("runs/seed1-ae-0", "norm4", "norm4"),
    "seed1-cnn": ("", "", ""),
    "seed1-control": ("", "", ""),
    "seed1-control-frozen11": ("", "", "norm4"),
    "seed1-control-frozen": ("", "", "encoder"),
}
"""Recipe to encoder_from, encoder_until and freeze."""


@torch.no_grad()
def filled(network: nn.Module, seed: int) -> nn.Module:
    drawn = made_by.RandomLayers(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight, bias = drawn.convolution(tuple(layer.weight.shape))
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        elif isinstance(layer, nn.BatchNorm2d):
            for target, values in zip(
                (layer.weight, layer.bias, layer.running_mean, layer.running_var),
                drawn.norm(layer.num_features),
                strict=True,
            ):
                target.copy_(torch.from_numpy(values))
    return network.eval()


@pytest.mark.parametrize(
    ("name", "network", "seed", "inputs"),
    [
        ("encoder", seed1_encoder(), 10, made_by.pictures()),
        ("decoder", seed1_decoder(), 11, made_by.latents()),
    ],
)
def test_seed1_autoencoder_answers_as_in_keras(name, network, seed, inputs):
    with torch.no_grad():
        outputs = filled(network, seed)(torch.from_numpy(inputs)).numpy()
    assert np.abs(outputs).max() > 0.5
    np.testing.assert_allclose(made_by.sampled(outputs), KERAS[name], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "network", "inputs"),
    [
        ("cnn_on_images", cnn_classifier((3, 32, 32), 10), made_by.pictures()),
        ("cnn_on_latents", cnn_classifier((256, 8, 8), 10), made_by.latents()),
        ("dense_on_latents", dense_classifier((256, 8, 8), 10), made_by.latents()),
    ],
)
def test_seed1_classifiers_answer_as_in_keras(name, network, inputs):
    with torch.no_grad():
        chances = filled(network, 12)(torch.from_numpy(inputs)).softmax(dim=1).numpy()
    np.testing.assert_allclose(chances, KERAS[name], atol=1e-4)


def test_norm_follows_as_in_keras():
    norm = keras_norm(5).train()
    output = norm(torch.from_numpy(made_by.latents()[:, :5])).detach().numpy()
    np.testing.assert_allclose(made_by.sampled(output), KERAS["norm_output"], atol=1e-4)
    np.testing.assert_allclose(norm.running_mean, KERAS["norm_mean"], atol=1e-6)
    np.testing.assert_allclose(norm.running_var, KERAS["norm_variance"], rtol=1e-3)  # torch's is unbiased


@pytest.mark.parametrize("name", ["rmsprop", "keras-rmsprop", "keras-adam"])
def test_optimizers_update_as_in_keras(name):
    weight = nn.Parameter(torch.zeros(len(made_by.GRADIENT_SCALES)))
    optimizer = build_optimizer([weight], Stage(optimizer=name, learning_rate=1e-3))
    for gradient, expected in zip(made_by.gradients(), KERAS[name], strict=True):
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        np.testing.assert_allclose(weight.detach(), expected, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize(("name", "other"), [("keras-adam", "adam"), ("keras-rmsprop", "rmsprop")])
def test_the_smallest_gradients_tell_the_optimizers_apart(name, other):
    gradient = torch.from_numpy(next(made_by.gradients()))
    moved = []
    for optimizer in (name, other):
        weight = nn.Parameter(torch.zeros_like(gradient))
        weight.grad = gradient
        build_optimizer([weight], Stage(optimizer=optimizer, learning_rate=1e-3)).step()
        moved.append(float(weight.detach()[-1]))
    assert abs(moved[0] / moved[1] - 1) > 0.5


def test_callbacks_act_as_in_keras():
    settings = load_recipe("seed1-frozen11").classify
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    plateau = build_plateau(optimizer, settings)
    stopping = Stopping("validation_loss", patience=settings.early_stopping_patience, check_finite=False)
    rates = []
    for loss in made_by.losses():
        plateau.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
        if stopping._evaluate_stopping_criteria(torch.tensor(loss))[0]:
            break
    np.testing.assert_allclose(rates, KERAS["learning_rates"], rtol=1e-5)
    assert 20 < len(rates) < len(made_by.losses())


def test_seed1_starts_as_keras_does():
    network = build_network(load_recipe("seed1-control").model, 32, 10, torch.zeros(3), torch.ones(3))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
            limit = (6 / (area * sum(layer.weight.shape[:2]))) ** 0.5  # Glorot-uniform
            assert limit * 0.95 < layer.weight.abs().max() <= limit
            assert not layer.bias.any()
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.eps, layer.momentum) == (1e-3, pytest.approx(0.01))


@pytest.mark.parametrize("name", AUTOENCODERS + tuple(ENCODERS))
def test_seed1_recipes_have_the_published_settings(name):
    recipe = load_recipe(name)
    assert (recipe.data.draw, recipe.data.validation) == ("random", 0.15)
    assert recipe.data.limit == dict.fromkeys(("bird", "deer", "truck"), 2500)
    stage = recipe.pretrain if name in AUTOENCODERS else recipe.classify
    assert (stage.max_epochs, stage.batch_size, stage.learning_rate) == (100, 128, 1e-3)
    assert stage.optimizer == ("rmsprop" if name in AUTOENCODERS else "keras-adam")
    assert (stage.schedule, stage.plateau_factor, stage.plateau_patience, stage.plateau_cooldown) == (
        ("plateau", 0.3, 10, 1)
    )
    assert (stage.minimum_learning_rate, stage.early_stopping_patience) == (1e-4, 15)
    augment = recipe.batches.pretrain if name in AUTOENCODERS else recipe.batches.classify
    keras = (augment.rotation, augment.width_shift, augment.height_shift, augment.shear, augment.zoom, augment.flip)
    if name == "seed1-ae":
        assert augment == type(augment)()
    else:
        assert keras == (40, 0.2, 0.2, 0.2, 0.2, "random")
        assert augment.validation
        assert augment.balanced is (name not in AUTOENCODERS)
    assert (recipe.pretrain.target == "original") is (name == "seed1-ae-augmented")
    if name in ENCODERS:
        assert (recipe.pretrain.encoder_from, recipe.pretrain.encoder_until, recipe.classify.freeze) == ENCODERS[name]
    assert recipe.model.classifier == ("dense" if "dense" in name else "cnn")
    assert recipe.model.autoencoder == ("identity" if name == "seed1-cnn" else "seed1")


def test_the_corrected_autoencoder_differs_in_its_target_alone():
    published, corrected = load_recipe("seed1-ae-augmented"), load_recipe("seed1-ae-augmented-both")
    assert corrected.pretrain == published.pretrain.model_copy(update={"target": "transformed"})
    for section in ("data", "batches", "model", "classify", "evaluate"):
        assert getattr(corrected, section) == getattr(published, section)


def test_seed2_answers_as_its_published_layers():
    encoder = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 16, 5, padding=2)]
    classifier = [nn.Conv2d(16, 32, 3), nn.Conv2d(32, 64, 3)]
    published = nn.ModuleList([*encoder, *classifier, nn.Linear(2304, 128), nn.Linear(128, 64), nn.Linear(64, 16)])
    filled(published, 20)
    network = build_network(load_recipe("seed2").model, 32, 10, torch.zeros(3), torch.ones(3))
    filled(nn.ModuleList([network.encoder, network.classifier]), 20)
    pictures = torch.from_numpy(made_by.pictures())
    with torch.no_grad():
        first, second, third, fourth, fifth, *dense = published
        x = functional.max_pool2d(second(first((pictures - 0.5) / 0.5).relu()).relu(), 2)
        x = functional.max_pool2d(fifth(fourth(third(x).relu())), 2).flatten(1)
        for layer in dense:
            x = layer(x)
        answered = network(pictures).logits
        network.classifier.train()
        network.classifier[3].eval()
        trained_on = network.classifier(network.encode(pictures))
    assert x.shape == (2, 16)
    assert torch.allclose(trained_on, x, atol=1e-4)
    assert torch.allclose(answered, x[:, :10], atol=1e-4)


def test_seed2_has_the_published_settings():
    recipe = load_recipe("seed2")
    assert (recipe.data.standing, recipe.data.draw) == ("all-train", "first")
    classify = recipe.classify
    assert (classify.max_epochs, classify.batch_size, classify.learning_rate, classify.momentum, classify.nesterov) == (
        (100, 512, 0.01, 0.9, False)
    )
    assert (classify.optimizer, classify.schedule, classify.weight_decay) == ("sgd", "constant", 0)
    assert recipe.pretrain.max_epochs == 0
    assert recipe.batches.classify == type(recipe.batches.classify)()
    classifier = Seed2Classifier((16, 16, 16), 10)
    assert isinstance(classifier[3], nn.Dropout2d)
    assert classifier[3].p == 0.2
    assert sum(layer.weight.numel() for layer in seed2_encoder().modules() if isinstance(layer, nn.Conv2d)) == (
        3 * 4 * 9 + 4 * 8 * 9 + 8 * 16 * 25
    )
    pretrained = load_recipe("seed2-pretrained")
    assert (pretrained.model, pretrained.data) == (recipe.model, recipe.data)
    assert pretrained.classify == classify.model_copy(update={"max_epochs": 90})
    images = ImageSet(np.zeros((50_000, 3, 32, 32), np.uint8), np.arange(50_000) % 10, CLASS_NAMES)
    images.images[0] = 255
    jobs = [Job(one, images, make_split(images, one.data)) for one in (recipe, pretrained)]
    plain, with_autoencoder = (sum(job.planned_flops().values()) for job in jobs)
    assert with_autoencoder == pytest.approx(plain, rel=0.01)


def test_seed_2_begins_with_pytorchs_own_weights():
    """Uniform within one over the root of the inputs, biases too: what torch's layers draw, and its code left alone."""
    torch.manual_seed(0)
    network = build_network(Model(autoencoder="seed2", classifier="seed2"), 32, 10, torch.zeros(3), torch.ones(3))
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) >= 4
    for layer in layers:
        bound = layer.weight[0].numel() ** -0.5
        assert 0.8 * bound < layer.weight.abs().max() <= bound
        assert layer.bias.abs().max() <= bound
