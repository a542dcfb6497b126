"""What each stage trains, freezes, corrupts and refuses."""

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from latentry.batches.loader import Batch, Loader
from latentry.data.imageset import ImageSet
from latentry.data.split import make_split
from latentry.errors import DataError, DivergenceError, Interrupted, RecipeError, RunError
from latentry.models.network import build_network
from latentry.recipe import load_recipe
from latentry.run import Run
from latentry.settings import Augment, Classify, Model, Pretrain
from latentry.training import job
from latentry.training.checkpoint import loaded, newest
from latentry.training.classify import Classification
from latentry.training.job import Job
from latentry.training.pretrain import Pretraining, corrupted
from latentry.training.stage import StageModule, fit

CPU = torch.device("cpu")


def build(autoencoder="light", classifier="light"):
    torch.manual_seed(0)
    return build_network(Model(autoencoder=autoencoder, classifier=classifier), 32, 3, torch.zeros(3), torch.ones(3))


def loaders(images, batch_size=20):
    return (
        Loader(images, np.arange(60), batch_size, Augment(flip="random"), stage="s", seed=0, device=CPU),
        Loader(images, np.arange(60, 90), 30, Augment(), stage="s", seed=0, device=CPU, training=False),
    )


def run_stage(module: StageModule, images, folder, *, validate=True):
    train, validation = loaders(images)
    return fit(module, train, validation if validate else None, run=Run(folder), device=CPU, precision="fp32")


def changed(before: dict[str, torch.Tensor], part: nn.Module) -> set[str]:
    return {name for name, tensor in part.state_dict().items() if not torch.equal(before[name], tensor)}


def copied(part: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in part.state_dict().items()}


def test_pretraining_learns_to_reconstruct_and_spares_the_classifier(toy_images, tmp_path):
    network = build()
    before = copied(network.classifier)
    settings = Pretrain(max_epochs=8, learning_rate=5e-3)
    run_stage(Pretraining(network, settings, seed=0, num_steps=24), toy_images, tmp_path)
    rows = Run(tmp_path).metrics()
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert rows[-1]["train_psnr"] > rows[0]["train_psnr"] + 5
    assert not changed(before, network.classifier)


@pytest.mark.parametrize(
    ("autoencoder", "freeze", "first_trained"),
    [
        ("light", "", "stem"),
        ("light", "stem", "block1"),
        ("light", "block2", "block3"),
        ("light", "encoder", None),
        ("seed1", "norm4", "conv5"),
        ("seed1", "encoder", None),
    ],
)
def test_frozen_layers_keep_weights_and_statistics(toy_images, tmp_path, autoencoder, freeze, first_trained):
    network = build(autoencoder)
    before = copied(network.encoder)
    module = Classification(network, Classify(max_epochs=1, freeze=freeze), seed=0, num_steps=3)
    run_stage(module, toy_images, tmp_path, validate=False)
    names = [name for name, _ in network.encoder.named_children()]
    trained = names[names.index(first_trained) :] if first_trained else []
    weighted = {name.split(".")[0] for name in before}
    assert {name.split(".")[0] for name in changed(before, network.encoder)} == set(trained) & weighted


@pytest.mark.parametrize(
    ("recipe", "trained", "frozen"),
    [
        ("seed1-cnn", 2_170_122, 256),
        ("seed1-dense-augmented", 8_422_602, 1_740_096),
        ("seed1-frozen11", 1_826_634, 263_488),
    ],
)
def test_seed1_trains_as_many_parameters_as_published(recipe, trained, frozen):
    settings = load_recipe(recipe)
    network = build_network(settings.model, 32, 10, torch.zeros(3), torch.ones(3))
    module = Classification(network, settings.classify, seed=0, num_steps=1)
    weights = [weight for part in module.trained() for weight in part.parameters()]
    statistics = [
        buffer
        for part in module.trained()
        for name, buffer in part.named_buffers()
        if name.endswith(("running_mean", "running_var"))  # which Keras counts
    ]
    assert sum(weight.numel() for weight in weights if weight.requires_grad) == trained
    assert sum(one.numel() for one in [*weights, *statistics] if not one.requires_grad) == frozen


def test_dropout_stays_active_in_frozen_layers():
    network = build("seed1", "dense")
    module = Classification(network, Classify(freeze="norm4"), seed=0, num_steps=1)
    module.prepare()
    modes = {name: layer.training for name, layer in network.encoder.named_children()}
    assert modes["dropout1"]
    assert not modes["norm1"]
    assert not modes["norm4"]
    assert modes["norm5"]


def test_the_decoder_learns_only_in_joint_training(toy_images, tmp_path):
    for weight, expected in ((0.0, False), (1.0, True)):
        network = build()
        before = copied(network.decoder)
        module = Classification(network, Classify(max_epochs=1, reconstruction_weight=weight), seed=0, num_steps=3)
        run_stage(module, toy_images, tmp_path / str(weight))
        assert bool(changed(before, network.decoder)) is expected


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(
        RecipeError, match=r"classify\.freeze = 'block9' is no layer of the encoder: its layers are stem, b"
    ):
        Classification(build(), Classify(freeze="block9"), seed=0, num_steps=1)


def test_masks_blank_whole_patches_and_noise_has_its_deviation():
    images = torch.rand(200, 3, 32, 32)
    masked = corrupted(images, Pretrain(mask=0.6, mask_patch=4))
    patches = (masked != images).any(dim=1).reshape(200, 8, 4, 8, 4).float().mean(dim=(2, 4))
    assert set(patches.unique().tolist()) == {0.0, 1.0}
    assert patches.mean() == pytest.approx(0.6, abs=0.02)
    noisy = corrupted(images, Pretrain(noise=0.1))
    assert (noisy - images).std() == pytest.approx(0.1, rel=0.02)
    assert corrupted(images, Pretrain()) is images


class Diverging(Classification):
    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        losses = super().losses(batch)
        bad = self.training and self.trainer.global_step == 4
        return losses | {"loss": losses["loss"] * (float("nan") if bad else 1)}


def test_a_loss_that_is_not_finite_stops_with_its_place_and_the_last_good_checkpoint(toy_images, tmp_path):
    module = Diverging(build(), Classify(max_epochs=3), seed=0, num_steps=9)
    with pytest.raises(DivergenceError, match=r"stage classify became nan in epoch 2, step 2: .*checkpoint is .*last"):
        run_stage(module, toy_images, tmp_path)
    assert loaded(tmp_path / "checkpoints" / "classify" / "last.ckpt")
    assert len(Run(tmp_path).metrics()) == 1


class Overflowing(Classification):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.trainer.is_last_batch:
            next(self.network.classifier.parameters()).data.fill_(float("inf"))


@pytest.mark.parametrize("validate", [True, False])
def test_weights_that_overflow_in_the_last_step_leave_no_checkpoint(toy_images, tmp_path, validate):
    module = Overflowing(build(), Classify(max_epochs=2), seed=0, num_steps=6)
    with pytest.raises(DivergenceError, match=r"stage classify ended epoch 1 with weights that fail: lower"):
        run_stage(module, toy_images, tmp_path, validate=validate)
    assert not (tmp_path / "checkpoints" / "classify" / "last.ckpt").exists()


def test_early_stopping_ends_with_the_best_weights(toy_images, tmp_path):
    network = build()
    settings = Classify(max_epochs=30, optimizer="sgd", learning_rate=1e-12, early_stopping_patience=2)
    log = run_stage(Classification(network, settings, seed=0, num_steps=90), toy_images, tmp_path)
    losses = [row["validation_loss"] for row in log.rows]
    assert len(losses) < 30
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 2
    kept = torch.load(tmp_path / "checkpoints" / "classify" / "best.ckpt", weights_only=True)
    assert kept["epoch"] == best
    assert torch.equal(kept["state_dict"]["network.encoder.stem.1.running_mean"], network.encoder.stem[1].running_mean)


def test_an_epoch_from_before_the_last_loss_is_never_the_best(toy_images, tmp_path, monkeypatch):
    settings = Classify(max_epochs=4, optimizer="sgd", learning_rate=1e-3)
    best = []
    for number in range(2):
        run_stage(Classification(build(), settings, seed=0, num_steps=12), toy_images, tmp_path / str(number))
        kept = tmp_path / str(number) / "checkpoints" / "classify" / "best.ckpt"
        best.append(torch.load(kept, weights_only=True)["epoch"])
        monkeypatch.setattr(Classification, "settled", lambda module: module.current_epoch != best[0])
    assert best[1] != best[0]


def test_without_validation_the_last_weights_stay(toy_images, tmp_path):
    network = build()
    run_stage(
        Classification(network, Classify(max_epochs=2), seed=0, num_steps=6), toy_images, tmp_path, validate=False
    )
    last = torch.load(tmp_path / "checkpoints" / "classify" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(last["network.classifier.linear.weight"], network.classifier.linear.weight)


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def test_of_damaged_checkpoints_the_last_good_one_is_used(toy_images, tmp_path, capsys):
    whole, resumed = build(), build()
    run_stage(Classification(whole, Classify(max_epochs=3), seed=0, num_steps=9), toy_images, tmp_path / "whole")
    for max_epochs in (2, 3):
        stage = Classification(resumed, Classify(max_epochs=max_epochs), seed=0, num_steps=9)
        log = run_stage(stage, toy_images, tmp_path / "run")
        damage(tmp_path / "run" / "checkpoints" / "classify" / "last.ckpt")
    assert len(log.rows) == 3
    assert "last.ckpt is damaged" in capsys.readouterr().err
    folder = tmp_path / "run" / "checkpoints" / "classify"
    assert newest(folder) == folder / "before-last.ckpt"
    assert not (folder / "last.ckpt").exists(), "it would take the place of the one before"
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    damage(folder / "before-last.ckpt")
    with pytest.raises(RunError, match=r"before-last\.ckpt is damaged .*: remove .* and resume to repeat that stage"):
        run_stage(Classification(build(), Classify(max_epochs=3), seed=0, num_steps=9), toy_images, tmp_path / "run")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_at_any_step_goes_on_from_it(toy_images, tmp_path, sent):
    """With dropout, transforms, a plateau and means over an epoch: as if it had never been stopped."""
    seen = []

    class Stopped(Classification):
        stop_at = None

        def training_step(self, batch, batch_idx):
            seen.append(self.global_step)
            if self.global_step == self.stop_at:
                os.kill(os.getpid(), sent)
            return super().training_step(batch, batch_idx)

    def go_on(folder, stop_at=None):
        settings = Classify(max_epochs=4, schedule="plateau", plateau_patience=1, early_stopping_patience=9)
        module = Stopped(build("seed2", "seed2"), settings, seed=0, num_steps=24)
        module.stop_at = stop_at
        train, validation = loaders(toy_images, batch_size=10)
        log = fit(module, train, validation, run=Run(folder), device=CPU, precision="fp32")
        return module.network.state_dict(), [{**row, "seconds": 0, "images_per_second": 0} for row in log.rows]

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    whole, rows = go_on(tmp_path / "whole")
    assert len(seen) == 24
    seen.clear()
    stops = {
        1: "0 of 4 epochs and 2 of 6 steps",
        3: "0 of 4 epochs and 4 of 6 steps",
        5: "0 of 4 epochs and 6 of 6 steps",
        6: "1 of 4 epochs and 1 of 6 steps",
        16: "2 of 4 epochs and 5 of 6 steps",
        23: "3 of 4 epochs and 6 of 6 steps",
    }
    for step, done in stops.items():
        with pytest.raises(Interrupted, match=f"stopped in classify after {done}; continue with"):
            go_on(tmp_path / "run", step)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    again, repeated = go_on(tmp_path / "run")
    assert seen == list(range(24)), "no step is trained twice"
    assert repeated == rows
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


def test_a_share_of_the_labels_leaves_the_autoencoder_all_images(toy_images):
    recipe = load_recipe("quick", {"data.limit": {}, "data.labels": 0.1, "device": "cpu"})
    split = make_split(toy_images, recipe.data)
    job = Job(recipe, toy_images, split)
    assert sorted(job.loader("pretrain").indices.tolist()) == sorted(split.train.tolist())
    assert len(set(job.loader("classify").indices.tolist())) < len(split.train) / 5


def test_networks_that_are_compared_see_the_same_batches(toy_images):
    """By seed, whatever the network; balanced and transformed, as the two recipes say."""

    def batches(name, seed):
        recipe = load_recipe(name, {"data.source": "arrays", "device": "cpu", "seed": seed})
        return list(Job(recipe, toy_images, make_split(toy_images, recipe.data)).loader("classify"))

    deep, plain, other = batches("seed1-control", 0), batches("seed1-cnn", 0), batches("seed1-cnn", 1)
    for one, same in zip(deep, plain, strict=True):
        assert torch.equal(one.images, same.images)
        assert torch.equal(one.labels, same.labels)
    assert not torch.equal(plain[0].images, other[0].images)


def test_images_of_one_colour_are_named_before_anything_is_trained(toy_images):
    recipe = load_recipe("quick", {"data.source": "arrays"})
    plain = dataclasses.replace(toy_images, images=np.full_like(toy_images.images, 7))
    with pytest.raises(DataError, match="all of one and the same colour"):
        Job(recipe, plain, make_split(plain, recipe.data))


def test_patches_are_fitted_on_images_of_all_classes(monkeypatch):
    """Whatever their order: here of two classes, 40 black and 20 white images."""
    monkeypatch.setattr(job, "NUM_PATCH_IMAGES", 30)
    images = ImageSet(
        np.repeat([0, 255], [40, 20]).astype(np.uint8)[:, None, None, None] * np.ones((1, 3, 32, 32), dtype=np.uint8),
        np.repeat([0, 1], [40, 20]).astype(np.int64),
        ("black", "white"),
    )
    settings = {"model.autoencoder": "patches", "pretrain.max_epochs": 0, "classify.reconstruction_weight": 0}
    recipe = load_recipe("quick", settings | {"data.source": "arrays", "device": "cpu", "data.standing": "all-train"})
    moments = Job(recipe, images, make_split(images, recipe.data))._patch_moments
    assert moments[0, 0].item() == pytest.approx(1, abs=0.4)  # of black images alone 0.5, of white 2
