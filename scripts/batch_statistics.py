"""How well a run knows its validation images with its norms' stored statistics, and with those of each batch.

    .venv/bin/python scripts/batch_statistics.py runs/pairs/seed1-control-frozen11-0

Where weights move faster than the stored statistics follow, the second is far above the first: then it is the norms
that fail, not what the layers have learned. Norms that were frozen keep what they have stored; batches of 128 in a
random order, untransformed. Prints JSON; the test images stay closed.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from latentry import files
from latentry.data import load_train
from latentry.errors import LatentryError
from latentry.models.network import AutoencoderClassifier
from latentry.models.saved import load_model
from latentry.run import Run

BATCH_SIZE = 128


def accuracy(network: AutoencoderClassifier, images: np.ndarray, labels: np.ndarray, *, of_batch: bool) -> float:
    """Share of right answers to uint8 images (N, C, H, W); a last batch that isn't whole is left out."""
    network.eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            layer.train(of_batch and bool(layer.running_mean.any()))  # of a frozen one it is as it began
    order = np.random.default_rng(0).permutation(len(labels))
    right = []
    for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
        some = order[start : start + BATCH_SIZE]
        with torch.inference_mode():
            chosen = network(torch.from_numpy(images[some]).float() / 255).logits.argmax(dim=1)
        right.append(chosen.numpy() == labels[some])
    return float(np.mean(right))


def main(folder: Path) -> None:
    run = Run.open(folder)
    train = load_train(run.recipe().data)
    validation = files.read_json(run.split_file)["validation"]
    if not validation:
        sys.exit(f"{folder} has no validation images: give a held-out run")
    images, labels = train.images[validation], train.labels[validation]
    found = {}
    for name, of_batch in (("stored", False), ("of_batch", True)):
        network, _ = load_model(run.model_folder)  # anew, since asking a norm for a batch's moves what it stores
        found[name] = accuracy(network, images, labels, of_batch=of_batch)
    print(json.dumps({"run": run.results()["recipe"], "part": "validation", **found}, indent=1))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except LatentryError as error:
        sys.exit(str(error))
