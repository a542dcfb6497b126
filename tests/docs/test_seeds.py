"""What docs/results.md says of the two original programs, rebuilt, follows from the committed results."""

import csv
import json
import re
import statistics
from pathlib import Path

import pytest
from scipy import stats

from latentry.evaluation.paired import interval, judged, seeds_needed

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
KINDS = ("plain", "transformed")


def by_batch(run: str) -> tuple[dict[str, str], ...]:
    """What `scripts/rescore.py` found of plain and of transformed images, %, by whose statistics are each batch's."""
    content = json.loads((RESULTS / f"batch-statistics-{run}.json").read_text())
    return tuple({way: f"{100 * share:.1f}" for way, share in content[kind].items()} for kind in KINDS)


def spread(values: list[float], scale: float = 1.0) -> str:
    return f"{scale * statistics.mean(values):.2f} ± {scale * statistics.stdev(values):.2f}"


def test_recalls_stand_beside_the_published_ones():
    table = (ROOT / "docs" / "results.md").read_text()
    first = json.loads((RESULTS / "seed1-frozen11-50-epochs.json").read_text())["test"]["per_class"]
    second = [json.loads(path.read_text())["test"]["per_class"] for path in RESULTS.glob("seed2-seed-?.json")]
    for index, row in enumerate(first):
        mean = 100 * statistics.mean(run[index]["recall"] for run in second)
        pattern = rf"^\| {row['name']} \| \d\d \| {100 * row['recall']:.1f} \| [\d.]+ \| {mean:.1f} \|$"
        assert re.search(pattern, table, re.MULTILINE), pattern


def test_what_is_said_of_recalls_follows_from_the_table():
    text = (ROOT / "docs" / "results.md").read_text()
    published = re.findall(r"^\| (\w+) \| (\d\d) \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \|$", text, re.MULTILINE)
    assert len(published) == 10
    assert all(abs(float(seventh) - float(ours)) < 3.05 for _, seventh, ours, _ in published)
    runs = [json.loads(path.read_text())["test"]["per_class"] for path in RESULTS.glob("seed2-seed-?.json")]
    spans = [sorted(100 * run[index]["recall"] for run in runs) for index in range(10)]
    outside = [
        name
        for (name, _, _, value), span in zip(published, spans, strict=True)
        if not span[0] <= float(value) <= span[-1]
    ]
    words = " ".join(text.split())
    assert f"Of seed 2 {', '.join(outside[:-1])} and {outside[-1]} lie outside what five seeds span" in words
    widths = [span[-1] - span[0] for span in spans]
    assert f"varies by {min(widths):.0f} to {max(widths):.0f} points" in words


def test_what_is_said_of_the_autoencoders_was_measured():
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    losses = []
    for name in ("seed1-ae-0", "seed1-ae-keras3-0"):
        with (RESULTS / f"{name}.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == 20
        losses.append(float(rows[-1]["train_loss"]))
    assert f"the training loss was {losses[0]:.4f} with the one" in text
    assert f"and {losses[1]:.4f} with the other" in text
    with (RESULTS / "seed1-ae-0.csv").open() as stream:
        course = [float(row["validation_psnr"]) for row in csv.DictReader(stream)]
    assert (
        f"6 still improved, from {course[9]:.1f} dB on the validation images in its tenth epoch to {course[17]:.1f}"
        in text
    )
    ours = json.loads((RESULTS / "seed1-ae-0.json").read_text())["test"]["psnr"]
    taken = json.loads((RESULTS / "published-ssim-seed1-ae-augmented-0.json").read_text())["as_published"]
    assert f"Whether as many would close 6's gap of {27.825 - ours:.2f} dB, and that of 2 in SSIM" in text
    assert f"taken as published, of {100 * (0.526 - taken):.0f} points" in text
    fewer = json.loads((RESULTS / "published-ssim-seed1-ae-augmented-5-epochs.json").read_text())["as_published"]
    assert f"2 came from 5 to 20 epochs from {fewer:.3f} to {taken:.3f} in SSIM taken as published" in text
    for path in RESULTS.glob("published-ssim-*.json"):
        ssim = json.loads(path.read_text())
        assert f"| {ssim['as_published']:.3f} | {ssim['standard']:.3f} | [numbers](results/{path.name}) |" in text


def test_what_the_correction_of_system_2_brings_was_measured():
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    published, corrected, plain = (
        json.loads((RESULTS / f"{name}-0.json").read_text())["test"]["psnr"]
        for name in ("seed1-ae-augmented", "seed1-ae-augmented-both", "seed1-ae")
    )
    assert f"it comes to {corrected - published:.2f} dB more, {plain - corrected:.2f} less than without any" in text


def test_what_dropout_costs_seed_2_was_measured():
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    (path,) = RESULTS.glob("published-accuracy-*.json")
    accuracy = {name: 100 * value for name, value in json.loads(path.read_text()).items() if isinstance(value, float)}
    assert f"{accuracy['standard']:.2f} % of the validation images right without dropout" in text
    assert f"{accuracy['as_published']:.2f} ± {accuracy['deviation']:.2f} % with it" in text


def test_what_pretraining_does_for_seed_2_follows_from_the_committed_results():
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    sides = [
        [json.loads((RESULTS / f"{name}-seed-{seed}.json").read_text())["test"] for seed in range(5)]
        for name in ("seed2-pretrained", "seed2")
    ]
    differences = [one["accuracy"] - other["accuracy"] for one, other in zip(*sides, strict=True)]
    bounds = interval(differences)
    assert bounds is not None
    low, high = (100 * bound for bound in bounds)
    word = {"better": "better than", "worse": "worse than"}.get(judged(bounds), "not shown to differ from")
    mean = 100 * statistics.mean(differences)
    assert f"is {word} seed 2: {mean:+.2f} points of test accuracy ({low:+.2f} to {high:+.2f}, paired t" in text
    assert f"to show one point would take {seeds_needed(differences)} pairs" in text
    for recalls in zip(*(run["per_class"] for side in sides for run in side), strict=True):
        own = [one["recall"] - other["recall"] for one, other in zip(recalls[:5], recalls[5:], strict=True)]
        bounds = interval(own, num_looks=10)
        assert bounds is not None
        mean, low, high = (100 * value for value in (statistics.mean(own), *bounds))
        assert f"| {recalls[0]['name']} | {mean:+.1f} ({low:+.1f} to {high:+.1f}) | {judged(bounds)} |" in text
    assert f"mean ± deviation of the five | **{spread([run['accuracy'] for run in sides[0]], 100)}** |" in text
    again = [
        100 * json.loads((RESULTS / "pairs" / f"{name}-0" / "results.json").read_text())["test"]["accuracy"]
        for name in ("seed2-pretrained", "seed2")
    ]
    stored = json.loads((RESULTS / "compare-seed2-pretrained-seed2.json").read_text())
    assert 100 * stored["difference"] == pytest.approx(again[0] - again[1])
    assert f"{again[0]:.2f} and {again[1]:.2f} %, {again[1] - again[0]:.2f} points less" in text


def test_what_is_said_of_systems_3_and_7_follows_from_the_committed_results():
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    third, seventh, longer = (
        json.loads((RESULTS / f"{name}.json").read_text())["test"]["accuracy"]
        for name in ("seed1-frozen11-augmented-0", "seed1-frozen11-0", "seed1-frozen11-50-epochs")
    )
    fourth, fourth_longer = (
        json.loads((RESULTS / f"seed1-frozen-augmented-{name}.json").read_text())["test"]["accuracy"]
        for name in ("0", "60-epochs")
    )
    assert f"of 7, which gained {100 * (longer - seventh):.2f} points from 30 to 50 epochs" in text
    assert f"4 gained {100 * (fourth_longer - fourth):.2f} from 30 to 60, and is {60 - 100 * fourth_longer:.2f}" in text
    tenth = []
    for name in ("after-5", "60-epochs"):
        with (RESULTS / f"seed1-frozen-augmented-{name}.csv").open() as stream:
            tenth.append(100 * float(list(csv.DictReader(stream))[9]["validation_accuracy"]))
    few, many = (f"{share:.1f} %" for share in tenth)
    assert f"4 gets {few} of the validation images right in its tenth epoch instead of {many}" in text
    fifth = json.loads((RESULTS / "seed1-dense-augmented-0.json").read_text())["test"]["accuracy"]
    gaps = ", ".join(f"{100 * (least - ours):.2f}" for least, ours in ((0.74, third), (0.6, fourth)))
    assert f"3, 4 and 5 are {gaps} and {100 * (0.48 - fifth):.2f} points below" in text
    assert f"at 30 epochs each it was {100 * (seventh - third):.2f}" in text
    plain, transformed = by_batch("seed1-frozen11-augmented-0")
    assert f"3 gets {plain['stored']} % of the untransformed validation images right, and {plain['all']} %" in text
    assert f"of transformed ones {transformed['stored']} and {transformed['all']} %" in text
    plain, transformed = by_batch("seed1-dense-augmented-10-epochs")
    assert f"after 10 epochs: {plain['stored']} and {plain['all']} %; of transformed ones" in text
    assert f"of transformed ones {transformed['stored']} and {transformed['all']} %" in text
    assert plain["all"] == plain["frozen"]
    last = {
        run: (json.loads((RESULTS / f"batch-statistics-{run}.json").read_text())["last"], by_batch(run)[0]["stored"])
        for run in ("seed1-frozen11-augmented-0", "seed1-dense-augmented-10-epochs", "seed1-frozen-augmented-60-epochs")
    }
    *same, fourth_last = ((f"{100 * share:.1f}", stored) for share, stored in last.values())
    assert all(share == stored for share, stored in same)
    assert f"the last of 4 get {fourth_last[0]} % right" in text


def test_recalls_of_systems_3_4_and_5_stand_beside_the_published_ones():
    text = (ROOT / "docs" / "results.md").read_text()
    cells = re.findall(
        r"^\| (?:[a-z]+|precision of frog) \|(?: (\d\d) \| (\d\d\.\d) \|)(?: (\d\d) \| (\d\d\.\d) \|)"
        r"(?: (\d\d) \| (\d\d\.\d) \|)$",
        text,
        re.MULTILINE,
    )
    published, rebuilt = ([[float(row[column]) for row in cells] for column in part] for part in ((0, 2, 4), (1, 3, 5)))
    names = "seed1-frozen11-augmented-0", "seed1-frozen-augmented-60-epochs", "seed1-dense-augmented-0"
    correlations = []
    for name, theirs, ours in zip(names, published, rebuilt, strict=True):
        classes = json.loads((RESULTS / f"{name}.json").read_text())["test"]["per_class"]
        measured = [row["recall"] for row in classes] + [classes[6]["precision"]]
        assert ours == pytest.approx([100 * value for value in measured], abs=0.0501)
        correlations.append(statistics.correlation(theirs[:10], ours[:10]))
    assert f"(correlated by {min(correlations):.2f} to {max(correlations):.2f}, below)" in " ".join(text.split())


def test_what_is_said_of_system_4_and_its_control_follows_from_the_committed_results():
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    fourth, control = (
        json.loads((RESULTS / f"{name}-0.json").read_text())
        for name in ("seed1-frozen-augmented", "seed1-control-frozen")
    )
    assert fourth["split_sha256"] == control["split_sha256"]
    assert fourth["flops"]["classify"] == control["flops"]["classify"]
    gap = fourth["test"]["accuracy"] - control["test"]["accuracy"]
    assert f"the same 30 epochs came to {100 * gap:.2f} points less" in text
    plain, transformed = by_batch("seed1-control-frozen-0")
    assert float(plain["stored"]) == pytest.approx(100 * control["validation"]["accuracy"], abs=0.5)  # in fp32
    assert f"control gets {plain['stored']} % right in fp32" in text
    assert f"{plain['trained']} % (of transformed ones {transformed['stored']} and {transformed['trained']} %" in text
    plain, transformed = by_batch("seed1-frozen-augmented-60-epochs")
    assert f"gets {transformed['stored']} % right, {transformed['all']} % with each batch's own" in text
    assert f"untransformed it gets {plain['stored']} % right, {plain['all']} % with each batch's own" in text
    assert f"and {plain['trained']} % if only the classifier's norms take those" in text


def test_what_the_autoencoder_does_for_system_7_follows_from_the_committed_runs():
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    seventh, control, first = (
        [json.loads((RESULTS / "pairs" / f"{name}-{seed}" / "results.json").read_text()) for seed in range(3)]
        for name in ("seed1-frozen11", "seed1-control", "seed1-cnn")
    )
    lent, own, alone = (
        count / 1e15
        for count in (
            *(seventh[0]["flops"][stage] for stage in ("pretrain", "classify")),
            control[0]["flops"]["classify"],
        )
    )
    assert f"20 epochs cost {lent:.2f} PFLOP beside the {own:.2f} of the classifier" in text
    assert f"the control cost {alone:.2f} PFLOP in all" in text
    assert f"7 was given {(lent + own) / alone:.1f} times as many operations" in text
    assert f"at equal operations the control would have {15 * (lent + own) / alone:.0f} epochs" in text
    assert f"1 had {first[0]['flops']['classify'] / 1e15:.2f} PFLOP in all" in text
    assert len({run["split_sha256"] for run in seventh + control + first}) == 1
    for runs in (seventh, control, first):
        assert f"mean ± deviation of the three | **{spread([run['test']['accuracy'] for run in runs], 100)}** |" in text
    differences = [
        one["test"]["accuracy"] - other["test"]["accuracy"] for one, other in zip(seventh, control, strict=True)
    ]
    stored = json.loads((RESULTS / "compare-seed1-frozen11-seed1-control.json").read_text())
    assert stored["differences"] == pytest.approx(differences)
    assert stored["interval"] == pytest.approx(interval(differences))
    rows = [
        f"| {row['name']} | {100 * row['difference']:+.1f} ({100 * row['interval'][0]:+.1f} to "
        f"{100 * row['interval'][1]:+.1f}) | {row['verdict']} |"
        for row in stored["per_class"]
    ]
    assert all(row in text for row in rows)
    assert "McNemar's p of each pair is below 1e-14" in text
    assert max(stored["mcnemar_p"]) < 1e-14
    alone = [json.loads((RESULTS / f"seed1-cnn-fold-{fold}.json").read_text())["test"]["accuracy"] for fold in range(3)]
    deeper = [run["test"]["accuracy"] for run in control]
    gain = statistics.mean(deeper) - statistics.mean(alone)
    low, high = stats.ttest_ind(deeper, alone, equal_var=False).confidence_interval()
    assert f"gives {100 * gain:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f}) within 15 epochs" in text
    frozen = json.loads((RESULTS / "pairs" / "seed1-control-frozen11-0" / "results.json").read_text())
    reached = [100 * run["test"]["accuracy"] for run in (seventh[0], control[0], frozen)]
    assert f"the network came to {reached[2]:.2f} %, which is {reached[1] - reached[2]:.2f} points less" in text
    assert f"brought {reached[0] - reached[2]:.2f} of them back" in text
    assert frozen["split_sha256"] == seventh[0]["split_sha256"]
    plain, transformed = by_batch("seed1-control-frozen11-0")
    assert f"get {plain['trained']} % of the validation images right instead of {plain['stored']} %" in text
    assert f"of transformed ones {transformed['trained']} instead of {transformed['stored']} %" in text
    plain, _ = by_batch("seed1-frozen11-2")
    assert f"it is {plain['trained']} instead of {plain['stored']} %" in text
