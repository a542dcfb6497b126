"""Image classification that enters through an autoencoder's hidden layer, for small and imbalanced datasets."""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AutoencoderClassifier": "latentry.models.network",
    "ImageSet": "latentry.data.imageset",
    "LatentClassifier": "latentry.estimator",
    "LatentryError": "latentry.errors",
    "Predictor": "latentry.deploy.predictor",
    "Recipe": "latentry.recipe",
    "Run": "latentry.run",
    "compare_recipes": "latentry.studies.compare",
    "compare_runs": "latentry.studies.compare",
    "evaluate": "latentry.evaluation.evaluate",
    "load_model": "latentry.models.saved",
    "load_recipe": "latentry.recipe",
    "resume": "latentry.pipeline",
    "train": "latentry.pipeline",
    "write_report": "latentry.report.page",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `import latentry` and `latentry --help` wait for neither torch nor matplotlib.
    if name not in _HOMES:
        raise AttributeError(f"module 'latentry' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
