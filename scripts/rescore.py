"""A run's validation score taken another way, beside the standard one.

    .venv/bin/python scripts/rescore.py runs/seed1-ae-0
    .venv/bin/python scripts/rescore.py runs/seed2-held-out-0
    .venv/bin/python scripts/rescore.py runs/pairs/seed1-control-frozen11-0

SSIM of an autoencoder, as seed 1's author took it: scikit-image 0.18, given float images and nothing else, takes 2 for
the range of the pixels (-1 to 1) and a uniform window of 7; pixels in [0, 1] have a range of 1. The wrong range makes
the two stabilising constants four times as large, and every reconstruction look more alike its image than it is.

Accuracy of seed 2, as its authors took it: in their code the network is never switched to evaluation, so dropout was
active when it was tested. The mean of ten draws, with the weights of the last epoch, which it kept. Its run is a
held-out one:

    latentry train seed2 --standing held-out --out runs/seed2-held-out-0

Accuracy of any other classifier, with each batch's own statistics in place of those that norms have stored: in the
norms that were trained, in those that were frozen, in all. What a network gains by it, its norms had lost. On the
validation images as they are ("plain") and, where the recipe balances and transforms them, as training saw them
("transformed"); in batches of 128, in random order. Beside it the plain images with the weights of the last epoch
("last"), by which seed 1's author tested, where latentry takes those of the best.

Prints JSON; the test images stay closed.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from latentry.data import load_train
from latentry.data.split import Split
from latentry.errors import LatentryError, RunError
from latentry.models.network import AutoencoderClassifier, Output
from latentry.models.saved import load_model
from latentry.run import Run
from latentry.training.checkpoint import loaded
from latentry.training.job import Job

PUBLISHED = {"data_range": 2.0, "win_size": 7}
STANDARD = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
NUM_DRAWS = 10
BATCH_SIZE = 128


def answers(network: AutoencoderClassifier, images: np.ndarray, *, dropout: bool) -> Iterator[Output]:
    """What the network says of uint8 images (N, C, H, W), in batches, with dropout active or not."""
    network.eval()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout | nn.Dropout2d):
            layer.train(dropout)
    for batch in torch.from_numpy(images).split(500):
        with torch.inference_mode():
            yield network(batch.float() / 255)


def ssim(network: AutoencoderClassifier, images: np.ndarray) -> dict[str, float]:
    """Mean structural similarity, both ways."""
    asked = answers(network, images, dropout=False)
    rebuilt = np.concatenate([output.reconstruction.numpy() for output in asked]).transpose(0, 2, 3, 1)
    originals = (images.astype(np.float32) / 255).transpose(0, 2, 3, 1)
    means = {}
    for name, how in (("as_published", PUBLISHED), ("standard", STANDARD)):
        pairs = zip(originals, rebuilt, strict=True)
        means[name] = float(np.mean([structural_similarity(*pair, channel_axis=2, **how) for pair in pairs]))
    return means


def accuracy(network: AutoencoderClassifier, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Share of right answers, both ways, and the deviation over the draws."""

    def once(dropout: bool) -> float:
        chosen = torch.cat([output.logits.argmax(dim=1) for output in answers(network, images, dropout=dropout)])
        return float((chosen.numpy() == labels).mean())

    draws = [once(dropout=True) for _ in range(NUM_DRAWS)]
    return {"as_published": float(np.mean(draws)), "deviation": float(np.std(draws, ddof=1)), "standard": once(False)}


def accuracy_by_batch(job: Job, network: AutoencoderClassifier) -> dict[str, dict[str, float]]:
    """Share of right answers of each kind of images, by whose statistics are each batch's own."""
    job.stage("classify", network, num_steps=1).prepare()
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    trained, frozen = ([norm for norm in norms if norm.training is wanted] for wanted in (True, False))
    indices = job.split.validation
    kinds = {"plain": (torch.from_numpy(job.images.images[indices]) / 255, job.images.labels[indices])}
    if job.recipe.batches.classify.validation:
        batches = list(job.loader("classify", training=False))
        labels = torch.cat([batch.labels for batch in batches]).cpu().numpy()
        kinds["transformed"] = torch.cat([batch.images for batch in batches]).cpu(), labels
    ways = {"stored": [], "trained": trained, "frozen": frozen, "all": norms}
    return {kind: {way: right(network, *given, own) for way, own in ways.items()} for kind, given in kinds.items()}


def right(network: AutoencoderClassifier, images: Tensor, labels: np.ndarray, own: list[nn.BatchNorm2d]) -> float:
    """Share of right answers where the norms `own` take each batch's statistics; a rest is left out."""
    network.eval()
    for norm in own:
        norm.train()
        norm.momentum = 0.0  # what it has stored stays
    order = np.random.default_rng(0).permutation(len(labels))
    batches = order[: len(order) // BATCH_SIZE * BATCH_SIZE].reshape(-1, BATCH_SIZE)
    with torch.inference_mode():
        chosen = [network.classifier(network.encode(images[some])).argmax(dim=1) for some in batches]
    return float((torch.stack(chosen).numpy() == labels[batches]).mean())


def take_last_weights(network: AutoencoderClassifier, run: Run) -> None:
    """Replaces the best weights by those of the last epoch."""
    last = loaded(run.checkpoints("classify") / "last.ckpt")
    network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in last["state_dict"].items()})


def main(folder: Path) -> None:
    run = Run.open(folder)
    recipe = run.recipe()
    if recipe.data.standing != "held-out":
        raise RunError(f"{folder} has no validation images: give a held-out run")
    train = load_train(recipe.data)
    split = Split.read(run.split_file)
    network, _ = load_model(run.model_folder)
    torch.manual_seed(0)
    images, labels = train.images[split.validation], train.labels[split.validation]
    if recipe.model.classifier == "seed2":
        take_last_weights(network, run)
        measured = {"measure": "accuracy", **accuracy(network, images, labels)}
    elif run.results()["trained_classifier"]:
        measured = {"measure": "accuracy", **accuracy_by_batch(Job(recipe, train, split), network)}
        take_last_weights(network, run)
        measured["last"] = right(network, torch.from_numpy(images) / 255, labels, [])
    else:
        measured = {"measure": "ssim", **ssim(network, images)}
    print(json.dumps({"run": run.results()["recipe"], "part": "validation", **measured}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    try:
        main(parser.parse_args().run)
    except LatentryError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
