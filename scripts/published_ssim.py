"""SSIM as seed 1's author computed it, beside the standard one, on a run's validation images.

    python scripts/published_ssim.py runs/seed1-ae-0

scikit-image 0.18, given float images and nothing else, takes 2 for the range of the pixels (-1 to 1) and a uniform
window of 7; pixels in [0, 1] have a range of 1. The wrong range makes the two stabilising constants four times as
large, and every reconstruction look more alike its image than it is. Prints JSON; the test images stay closed.
"""

import json
import sys
from pathlib import Path

import numpy as np
from skimage.metrics import structural_similarity

from latentry import files
from latentry.data import load_train
from latentry.inference import answers
from latentry.run import Run
from latentry.runtime import resolve_device, resolve_precision
from latentry.training.checkpoint import load_model

PUBLISHED = {"data_range": 2.0, "win_size": 7}
STANDARD = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def main(folder: Path) -> None:
    run = Run.open(folder)
    images = load_train(run.recipe().data)
    validation = images.images[files.read_json(run.split_file)["validation"]]
    network, config = load_model(run.model_folder)
    device = resolve_device("auto")
    precision = resolve_precision("auto", device)
    asked = answers(network.to(device), validation, views=config.views, device=device, precision=precision)
    rebuilt = np.concatenate([output.reconstruction.numpy() for output in asked]).transpose(0, 2, 3, 1)
    originals = (validation.astype(np.float32) / 255).transpose(0, 2, 3, 1)
    means = {"run": run.results()["recipe"], "part": "validation"}
    for name, how in (("as_published", PUBLISHED), ("standard", STANDARD)):
        pairs = zip(originals, rebuilt, strict=True)
        means[name] = float(np.mean([structural_similarity(*pair, channel_axis=2, **how) for pair in pairs]))
    print(json.dumps(means, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
