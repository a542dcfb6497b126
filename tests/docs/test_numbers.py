"""Numbers in README and docs are those of the committed results."""

import csv
import json
import math
import re
import runpy
import statistics
from pathlib import Path

import numpy as np
import pytest

from latentry.data.cifar10 import CLASS_NAMES
from latentry.data.imageset import ImageSet
from latentry.data.split import make_split
from latentry.evaluation.paired import interval
from latentry.pipeline import at_cost, unpretrained
from latentry.recipe import load_recipe, named_recipes
from latentry.training.job import STAGES, Job

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
MINORITY = ("bird", "deer", "truck")
VARIANTS = runpy.run_path(str(ROOT / "scripts" / "variants.py"))


def load(recipe: str) -> list[dict]:
    return [json.loads((RESULTS / f"{recipe}-{seed}.json").read_text()) for seed in range(3)]


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


def test_two_processes_reach_what_one_does():
    alone = [results["test"]["accuracy"] for results in load("quick")]
    together = json.loads((RESULTS / "quick-two-processes-0.json").read_text())
    assert together["split_sha256"] == load("quick")[0]["split_sha256"]
    assert min(alone) <= together["test"]["accuracy"] <= max(alone)
    spread_of_one = f"{100 * min(alone):.2f} to {100 * max(alone):.2f} %"
    for page in ("scale.md", "reliability.md"):
        said = " ".join((ROOT / "docs" / page).read_text().split())
        assert f"{100 * together['test']['accuracy']:.2f} % of the test images" in said
        assert f"reach {spread_of_one}" in said


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
    low, high = interval([-gap for gap in gaps])
    assert f"| {-statistics.mean(gaps):.2f} ({low:+.2f} to {high:+.2f}) | three pairs, equal operations |" in table
    cost = json.loads((RESULTS / "compare-seed1-frozen11-seed1-cnn.json").read_text())["cost"]
    assert f"7 was given {cost[0]['flops'] / cost[1]['flops']:.0f} times the operations" in table
    for index, row in enumerate(quick[0]["test"]["per_class"]):
        means = [
            100 * statistics.mean(run["test"]["per_class"][index]["recall"] for run in runs)
            for runs in (quick, control)
        ]
        assert (
            f"| {row['name']} | {quick[0]['train_images'][row['name']]:,} | {means[0]:.1f} | {means[1]:.1f} |" in table
        )


@pytest.mark.parametrize("name", list(named_recipes()))
def test_a_recipes_header_says_what_to_expect(name):
    header = [line for line in named_recipes()[name].splitlines() if line.startswith("# ")]
    command = rf"# latentry train {name}( --standing all-train)? --test(   # after: latentry train [\w-]+)?"
    assert re.fullmatch(command, header[0])
    assert [line.split()[1] for line in header[1:]] == ["Time:", "Expected:", "Cost:"]
    expected, _, _published = header[2].partition("; published")
    measured = re.findall(r"\d+\.\d\d\d?(?: ± \d\.\d\d)?", expected)
    table = (ROOT / "docs" / "results.md").read_text()
    assert measured
    assert all(number in table for number in measured)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """As many images of each class as CIFAR-10 has, all black."""
    labels = np.arange(50_000) % len(CLASS_NAMES)
    return ImageSet(np.broadcast_to(np.zeros(1, dtype=np.uint8), (50_000, 3, 32, 32)), labels, CLASS_NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(named_recipes()))
def test_a_recipes_header_says_what_it_costs(name, images, monkeypatch):
    monkeypatch.setattr(ImageSet, "channel_statistics", lambda *_: (np.zeros(3), np.ones(3)))
    said = re.search(r"^# Cost: +(\d\.\d{3}) PFLOP( an epoch)?", named_recipes()[name], re.MULTILINE)
    settings = {"pretrain.encoder_from": "", "pretrain.encoder_until": ""}
    if " --standing all-train " in named_recipes()[name].splitlines()[0]:
        settings |= {"data.standing": "all-train"}
    recipe = load_recipe(name, settings)
    job = Job(recipe, images, make_split(images, recipe.data))
    stages = [stage for stage in STAGES if getattr(recipe, stage).max_epochs]
    total = job.epoch_flops(*stages) if said[2] else sum(job.planned_flops().values())
    assert float(said[1]) == pytest.approx(total / 1e15, abs=5e-4)


def test_the_flagships_rows_are_of_its_runs():
    table = (ROOT / "docs" / "results.md").read_text()
    folders = sorted(RESULTS.glob("pairs/flagship*"))
    assert len(folders) >= 2
    for folder in folders:
        kept = load_recipe(str(folder / "recipe.toml"))
        given = {"data.standing": "all-train", "device": "cpu", "precision": kept.precision, "seed": kept.seed}
        # Of sets that are smaller than the reference problem alone.
        given |= {f"{stage}.min_steps_per_epoch": getattr(kept, stage).min_steps_per_epoch for stage in STAGES}
        if "1500" in folder.name or "weight-2" in folder.name:
            given |= {"classify.batch_size": 1500, "classify.learning_rate": 0.2, "classify.rest_learning_rate": 0.05}
        given |= {"classify.reconstruction_weight": 2.0} if "weight-2" in folder.name else {}
        given |= {"classify.max_epochs": 18, "batches.classify.cutout": 0} if "18-epochs" in folder.name else {}
        assert kept == load_recipe(kept.name, given).changed({"description": kept.description})
        results = json.loads((folder / "results.json").read_text())
        assert results["standing"] == "all-train"
        assert sum(results["train_images"].values()) == 42_500
        seed = str(results["seed"])
        if folder.name != f"{kept.name}-{seed}":  # of other settings than the recipe has
            beside = [words for words in ("weight 2", "18 epochs") if words.replace(" ", "-") in folder.name]
            seed = ", ".join([seed, kept.precision, *beside])
        assert flagship_row(results, seed, f"pairs/{folder.name}/results") in table
    held_out = json.loads((RESULTS / "flagship-0.json").read_text())
    assert (held_out["recipe"], held_out["standing"]) == ("flagship", "held-out")
    assert flagship_row(held_out, "0, held-out", "flagship-0") in table
    minute = json.loads((RESULTS / "flagship-minute-0.json").read_text())
    assert flagship_row(minute, "0, held-out", "flagship-minute-0") in table
    first = json.loads((RESULTS / "flagship-1500-held-out-0.json").read_text())
    found = [f"{100 * results['validation']['accuracy']:.2f}" for results in (first, held_out)]
    assert f"{' and '.join(found)} % of the validation images" in " ".join(table.split())


def flagship_row(results: dict, seed: str, link: str) -> str:
    test, flops = results["test"], results["flops"]
    recalls = {entry["name"]: 100 * entry["recall"] for entry in test["per_class"]}
    minority = statistics.mean(recalls[name] for name in MINORITY)
    lowest, hardest = min((recall, other) for other, recall in recalls.items() if other not in MINORITY)
    rebuilt = "\N{EN DASH} | \N{EN DASH}" if test["psnr"] is None else f"{test['psnr']:.2f} | {test['ssim']:.3f}"
    parts = [f"`{results['recipe']}`", seed, f"{100 * test['accuracy']:.2f}", f"{minority:.1f}"]
    parts += [f"{lowest:.1f} ({hardest})", rebuilt, f"{(flops['pretrain'] + flops['classify']) / 1e15:.3f}"]
    return f"| {' | '.join(parts)} | [json](results/{link}.json) |"


def test_readme_and_table_say_what_the_flagship_and_its_control_reach():
    said = " ".join((ROOT / "README.md").read_text().split())
    held_out = json.loads((RESULTS / "flagship-0.json").read_text())
    test, seconds = held_out["test"], held_out["seconds"]
    assert f"PSNR {test['psnr']:.2f} dB" in said
    assert f"| {100 * test['accuracy']:.2f} % (one seed)" in said
    assert f"took {sum(seconds.values()) / 60:.0f} minutes ([docs/results/flagship-0.json]" in said
    for name in ("flagship", "flagship-control"):
        accuracies = [
            json.loads((folder / "results.json").read_text())["test"]["accuracy"]
            for folder in sorted(RESULTS.glob(f"pairs/{name}-?"))
        ]
        assert ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies) + " %" in said
        assert f"**{spread(accuracies, 100)}**" in (RESULTS.parent / "results.md").read_text()


@pytest.mark.slow
def test_the_flagships_control_is_the_one_that_a_comparison_makes(images, monkeypatch):
    monkeypatch.setattr(ImageSet, "channel_statistics", lambda *_: (np.zeros(3), np.ones(3)))
    recipe, written = load_recipe("flagship"), load_recipe("flagship-control")
    split = make_split(images, recipe.data)
    total = sum(Job(recipe, images, split).planned_flops().values())
    made = at_cost(Job(unpretrained(recipe), images, split), total)
    beside = {"description": written.description, "pretrain": written.pretrain}
    assert made.changed(beside | {"batches.pretrain": written.batches.pretrain}) == written


def test_every_committed_result_stands_in_a_row_with_its_numbers():
    table = (ROOT / "docs" / "results.md").read_text()
    linked = re.findall(r"^\|(.*)\[json\]\(results/([\w./-]+)\.json\) \|$", table, re.MULTILINE)
    of_several = ("compare-", "published-", "batch-statistics-", *(f"{study}-" for study in VARIANTS["STUDIES"]))
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


def test_tables_of_variants_are_those_that_were_measured():
    table = (ROOT / "docs" / "results.md").read_text()
    paths = [path for study in VARIANTS["STUDIES"] for path in RESULTS.glob(f"{study}-*.json")]
    assert paths
    for path in paths:
        content = json.loads(path.read_text())
        study, ways = path.name.partition("-")[0], content["ways"]
        settings = {key: value for key, value in content["settings"].items() if key != "data.standing"}
        command = [f".venv/bin/python scripts/variants.py {study} {content['recipe']}"]
        command += [f"--set {key}={value}" for key, value in settings.items()]
        command.append(f"--seeds {max(map(len, ways.values()))}")
        assert f"    {' '.join(command)}\n" in table
        assert VARIANTS["table"](ways) in table
        assert f"[json](results/{path.name})" in table


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


@pytest.mark.parametrize(("percent", "settings"), [(1, ""), (10, ""), (1, "-1500")])
def test_what_the_autoencoder_does_for_few_labels_follows_from_the_committed_runs(percent, settings):
    stored = json.loads((RESULTS / f"compare-flagship{settings}-{percent}-percent-of-labels.json").read_text())
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    for side in stored["sides"]:
        names = [f"{side['name']}{settings}-{seed}-labels-{percent / 100}" for seed in stored["seeds"]]
        runs = [json.loads((RESULTS / "few-labels" / name / "results.json").read_text()) for name in names]
        assert side["accuracies"] == [results["test"]["accuracy"] for results in runs]
        (labelled,) = {results["labelled_images"] for results in runs}
        assert f"({labelled:,} images, the other {36_125 - labelled:,} seen by the autoencoder alone)" in text
        assert ", ".join(f"{100 * accuracy:.2f}" for accuracy in side["accuracies"]) in text


def test_what_is_claimed_for_few_labels_is_the_verdict_of_five_pairs():
    stored = json.loads((RESULTS / "compare-flagship-1-percent-of-labels.json").read_text())
    assert stored["verdict"].startswith("flagship is better than flagship-control: ")
    assert len(stored["seeds"]) == 5
    low, high = (100 * bound for bound in stored["interval"])
    claim = f"by {100 * stored['difference']:.2f} points ({low:.2f} to {high:.2f}) in five pairs"
    for page in ("README.md", "docs/faq.md"):
        assert claim in " ".join((ROOT / page).read_text().split())


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
    runs = [
        [re.split(r"\s{2,}", row) for row in (RESULTS / f"against-keras{when}.txt").read_text().splitlines()[4:]]
        for when in ("", "-earlier")
    ]
    assert [len(rows) for rows in runs] == [5, 5]
    for row in runs[0]:
        assert f"| {' | '.join(row)} |" in table
    *_, augmentation, whole = runs[1]
    assert f"with Keras at {whole[1]} images a second for the whole epoch, gave {whole[3]} there" in table
    assert f"and {augmentation[3]} for\nthe augmentation" in table


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


def test_what_a_second_process_adds_is_what_was_measured():
    rows = [row.split() for row in (RESULTS / "scaling.txt").read_text().splitlines()[1:]]
    factors = {tuple(row[:2]): re.findall(r"x(\d\.\d\d)", " ".join(row)) for row in rows}
    said = " ".join((ROOT / "docs" / "scale.md").read_text().split())
    pretrain, classify = factors["2", "1"]
    assert f"pretrain {pretrain} times and classify {classify} times as many images a second" in said
    assert "({} and {})".format(*factors["1", "2"]) in said
