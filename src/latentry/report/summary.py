"""Results as lines of text, the way the seeds' authors print them."""

from typing import Any


def summary(results: dict[str, Any]) -> str:
    """Accuracy, a line for each class, and the classification report of the best-known part of `results`."""
    part = "test" if results["test"] is not None else "validation"
    scores = results[part]
    if scores is None:
        return "Trained on every image; `latentry evaluate` opens the test set."
    if not results["trained_classifier"]:
        return f"Autoencoder alone, on the {part} images: {_reconstruction(scores)}"
    rows = scores["per_class"]
    width = max(12, *(len(row["name"]) for row in rows))
    total = sum(row["total"] for row in rows)
    lines = [f"Accuracy on the {total:,} {part} images: {100 * scores['accuracy']:.2f} %", ""]
    for row in rows:
        recall = f"{100 * row['recall']:5.1f} %" if row["total"] else "    -  "
        lines.append(f"{row['name']:<{width}} {recall}  [{row['correct']}/{row['total']}]")
    lines += ["", f"{'':<{width}} precision    recall        f1   support"]
    for row in rows:
        numbers = f"{row['precision']:9.3f} {row['recall']:9.3f} {row['f1']:9.3f} {row['total']:9,}"
        lines.append(f"{row['name']:<{width}} {numbers}")
    lines += [
        "",
        f"balanced accuracy {100 * scores['balanced_accuracy']:.2f} %, macro F1 {scores['macro_f1']:.4f}, "
        f"log loss {scores['log_loss']:.4f}, calibration error {scores['ece']:.4f}",
    ]
    if scores["psnr"] is not None:
        lines.append(f"reconstruction: {_reconstruction(scores)}")
    return "\n".join(lines)


def _reconstruction(scores: dict[str, Any]) -> str:
    return f"PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f}"
