"""Numbers in README and docs/results.md are those of the committed results."""

import csv
import json
import math
import re
import statistics
from pathlib import Path

import pytest
from scipy import stats

from latentry.evaluation.paired import interval, judged, seeds_needed
from latentry.recipe import named_recipes

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
MINORITY = ("bird", "deer", "truck")
KINDS = ("plain", "transformed")


def load(recipe: str) -> list[dict]:
    return [json.loads((RESULTS / f"{recipe}-{seed}.json").read_text()) for seed in range(3)]


def by_batch(run: str) -> tuple[dict[str, str], ...]:
    """What `scripts/rescore.py` found of plain and of transformed images, %, by whose statistics are each batch's."""
    content = json.loads((RESULTS / f"batch-statistics-{run}.json").read_text())
    return tuple({way: f"{100 * share:.1f}" for way, share in content[kind].items()} for kind in KINDS)


def spread(values: list[float], scale: float = 1.0) -> str:
    return f"{scale * statistics.mean(values):.2f} ± {scale * statistics.stdev(values):.2f}"


@pytest.mark.parametrize("recipe", ["quick", "quick-unpretrained"])
def test_results_are_of_the_reference_problem(recipe):
    for seed, results in enumerate(load(recipe)):
        assert (results["recipe"], results["seed"], results["standing"]) == (recipe, seed, "held-out")
        assert sum(results["train_images"].values()) == 36_125
        assert [results["train_images"][name] for name in MINORITY] == [2_125] * 3
        assert sum(row["total"] for row in results["validation"]["per_class"]) == 6_375
        assert sum(row["total"] for row in results["test"]["per_class"]) == 10_000
    assert len({results["split_sha256"] for results in load("quick") + load("quick-unpretrained")}) == 1


@pytest.mark.parametrize("recipe", ["quick", "quick-unpretrained"])
def test_tables_show_the_committed_numbers(recipe):
    runs = load(recipe)
    readme, table = (ROOT / "README.md").read_text(), (ROOT / "docs" / "results.md").read_text()
    accuracies = [results["test"]["accuracy"] for results in runs]
    assert spread(accuracies, 100) in readme
    assert spread(accuracies, 100) in table
    for results in runs:
        row = [f"{100 * results[part]['accuracy']:.2f}" for part in ("validation", "test")]
        recalls = [entry["recall"] for entry in results["test"]["per_class"] if entry["name"] in MINORITY]
        row.append(f"{100 * statistics.mean(recalls):.1f}")
        row.append(f"{results['test']['ece']:.3f}")
        assert " | ".join(row) in table
    if recipe == "quick":
        psnrs = [results["test"]["psnr"] for results in runs]
        assert spread(psnrs) in readme
        assert spread(psnrs) in table
        assert min(results["pretrained_validation_psnr"] for results in runs) >= 22


def test_the_control_costs_what_it_controls():
    totals = [
        results["flops"]["pretrain"] + results["flops"]["classify"]
        for recipe in ("quick", "quick-unpretrained")
        for results in load(recipe)
    ]
    assert max(totals) / min(totals) == pytest.approx(1, abs=0.01)


def test_differences_and_recalls_by_class_are_those_of_the_runs():
    quick, control = load("quick"), load("quick-unpretrained")
    table = (ROOT / "docs" / "results.md").read_text()
    gaps = [100 * (b["test"]["accuracy"] - a["test"]["accuracy"]) for a, b in zip(quick, control, strict=True)]
    assert f"{min(gaps):.2f} to {max(gaps):.2f} points" in table
    assert f"{min(gaps):.2f} to {max(gaps):.2f} points" in " ".join((ROOT / "README.md").read_text().split())
    for index, row in enumerate(quick[0]["test"]["per_class"]):
        means = [
            100 * statistics.mean(run["test"]["per_class"][index]["recall"] for run in runs)
            for runs in (quick, control)
        ]
        assert (
            f"| {row['name']} | {quick[0]['train_images'][row['name']]:,} | {means[0]:.1f} | {means[1]:.1f} |" in table
        )


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


@pytest.mark.parametrize("name", list(named_recipes()))
def test_a_recipes_header_says_what_to_expect(name):
    header = [line for line in named_recipes()[name].splitlines() if line.startswith("# ")]
    assert re.fullmatch(rf"# latentry train {name} --test(   # after: latentry train [\w-]+)?", header[0])
    assert [line.split()[1] for line in header[1:]] == ["Time:", "Expected:", "Cost:"]
    expected, _, _published = header[2].partition("; published")
    measured = re.findall(r"\d+\.\d\d\d?(?: ± \d\.\d\d)?", expected)
    table = (ROOT / "docs" / "results.md").read_text()
    assert measured
    assert all(number in table for number in measured)


def test_every_committed_result_stands_in_a_row_with_its_numbers():
    table = (ROOT / "docs" / "results.md").read_text()
    linked = re.findall(r"^\|(.*)\[json\]\(results/([\w./-]+)\.json\) \|$", table, re.MULTILINE)
    of_several = ("compare-", "published-", "batch-statistics-")
    committed = [path.stem for path in RESULTS.glob("*.json") if not path.stem.startswith(of_several)]
    committed += [f"pairs/{path.parent.name}/results" for path in RESULTS.glob("pairs/*/results.json")]
    assert sorted(name for _, name in linked) == sorted(committed)
    for row, name in linked:
        results = json.loads((RESULTS / f"{name}.json").read_text())
        assert f"| `{results['recipe']}` |" in f"|{row}"
        test = results["test"]
        if test["accuracy"] is not None:
            assert f"| {100 * test['accuracy']:.2f} |" in row
        else:
            assert f"| {test['psnr']:.2f} | {test['ssim']:.3f} |" in row


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
    assert f"Whether 97 would close 6's gap of {27.825 - ours:.2f} dB, and that of 2 in SSIM" in text
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


def test_comparisons_say_what_was_measured():
    table = " ".join((ROOT / "docs" / "results.md").read_text().split())
    for path in RESULTS.glob("compare-*.json"):
        content = json.loads(path.read_text())
        assert f"[json](results/{path.name})" in table
        assert content["part"] == "test"
        if content["interval"] is None:
            (p,) = content["mcnemar_p"]
            assert f"{abs(100 * content['difference']):.2f}" in table
            assert p < 1e-150 or f"McNemar's p {p:.0e} ([json](results/{path.name}))" in table
            continue
        low, high = (100 * bound for bound in content["interval"])
        assert f"{100 * content['difference']:+.2f} ({low:+.2f} to {high:+.2f})" in table


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


def test_what_the_autoencoder_does_for_clothes_follows_from_the_committed_runs():
    stored = json.loads((RESULTS / "compare-clothes.json").read_text())
    found = [
        [
            json.loads((RESULTS / "clothes" / f"{name}-{seed}" / "results.json").read_text())["test"]["accuracy"]
            for seed in range(5)
        ]
        for name in stored["names"]
    ]
    assert [side["accuracies"] for side in stored["sides"]] == found
    differences = [one - other for one, other in zip(*found, strict=True)]
    assert stored["interval"] == pytest.approx(interval(differences))
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    for seed, (one, other) in enumerate(zip(*found, strict=True)):
        assert f"| {seed} | {100 * one:.1f} | {100 * other:.1f} | {100 * (one - other):+.1f} |" in text
    means = [100 * sum(side) / 5 for side in found]
    assert f"| **{means[0]:.2f}** | **{means[1]:.2f}** | **{means[0] - means[1]:+.2f}** |" in text
    assert {row["verdict"] for row in stored["per_class"]} == {"no difference shown"}
    rare = {row["name"]: f"{100 * row['difference']:+.1f}" for row in stored["per_class"]}
    assert f"bag {rare['bag']}, coat {rare['coat']}, sandal {rare['sandal']} points" in text
    assert f"one point would take {stored['seeds_needed']} pairs" in text


def test_near_duplicates_are_as_many_as_were_found():
    with (RESULTS / "near-duplicates-cifar10.csv").open() as file:
        pairs = list(csv.DictReader(file))

    def share(threshold: float) -> str:
        return f"{len({pair['test'] for pair in pairs if float(pair['similarity']) >= threshold}) / 100:.2f}"

    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    assert f"[all {len(pairs)} pairs]" in text
    assert f"images ({share(0.6)} %) have a near-duplicate" in text
    assert f"{share(0.65)}, {share(0.7)} and {share(0.8)} %" in text


def test_memory_is_what_was_measured():
    text = " ".join((ROOT / "docs" / "faq.md").read_text().split())
    rows = (RESULTS / "memory.txt").read_text()
    (own, resident, seconds), (asked, _, asking) = re.findall(
        r"^\w+ +([\d.]+) GiB of its own +([\d.]+) GiB resident +(\d+) s$", rows, re.MULTILINE
    )
    assert f"took {own} GiB of memory and {int(seconds) / 60:.0f} minutes" in text
    assert f"{resident} GiB were resident" in text
    assert f"took {asked} GiB and {int(asking) / 60:.0f} minutes" in text


def test_serving_is_as_fast_as_was_measured():
    text = " ".join((ROOT / "docs" / "serving.md").read_text().split())
    lines = (RESULTS / "serving.txt").read_text().splitlines()
    measured = {name: values for name, *values in (re.split(r"\s{2,}", line) for line in lines)}
    for name, shown in (("latentry serve", "`latentry serve`"), ("plain PyTorch", "a plain route")):
        rate, *times = measured[name]
        busy, calm, alone = ", ".join(times[:2]), ", ".join(times[2:4]), times[4]
        assert f"| {shown} | {rate} | {busy} ms | {calm} ms | {alone} ms |" in text
    for name, shown in (
        ("PyTorch, bf16", "PyTorch in bf16"),
        ("ONNX Runtime, fp32", "fp32"),
        ("ONNX Runtime, int8", "int8"),
    ):
        assert f"{shown} {', '.join(f'{float(value):.1f}' for value in measured[name])} ms" in text


def test_speed_beside_the_original_is_as_measured():
    table = (ROOT / "docs" / "results.md").read_text()
    rows = (RESULTS / "against-keras.txt").read_text().splitlines()[4:]
    assert len(rows) == 5
    for row in rows:
        name, *numbers = re.split(r"\s{2,}", row)
        assert f"| {name} | {' | '.join(numbers)} |" in table


def test_what_more_data_would_take_is_computed_from_the_measured_run():
    results, page = load("quick")[0], (ROOT / "docs" / "scale.md").read_text()
    seconds, flops = (sum(results[name][stage] for stage in ("pretrain", "classify")) for name in ("seconds", "flops"))
    assert f"{flops / 1e15:.3f} PFLOP in {seconds:.0f} seconds" in page
    assert f"{flops / seconds / 1e12:.2f} TFLOP/s" in page
    assert f"{flops * 1e4 / 0.11e15 / 3600:.1f} hours" in page
    rows = [re.split(r" \| |\| ?", line) for line in page.splitlines() if re.match(r"\| \d", line)]
    assert [int(row[1].replace(",", "")) for row in rows] == [42_500 * factor for factor in (1, 100, 10_000)]
    for row, factor in zip(rows, (1, 100, 10_000), strict=True):
        minutes = factor * seconds / 60
        unit, amount = max(pair for pair in ((1, minutes), (60, minutes / 60), (1440, minutes / 1440)) if pair[1] >= 1)
        assert float(row[3].split()[0].replace(",", "")) == pytest.approx(flops * factor / 1e15, rel=1e-3)
        assert row[4].split()[1] == {1: "minutes", 60: "hours", 1440: "days"}[unit]
        assert float(row[4].split()[0]) == pytest.approx(amount, rel=0.01)
        held = (
            factor * 6_375 * (2 * 2 * math.prod(results["network"]["latent"]) + math.prod(results["network"]["image"]))
        )
        assert float(row[5].split()[0]) == pytest.approx(held / 1e9, rel=0.03)
        assert float(re.sub(" TB", "e3", row[2].removesuffix(" GB"))) == pytest.approx(
            factor * 42_500 * 3072 / 1e9, rel=0.03
        )
