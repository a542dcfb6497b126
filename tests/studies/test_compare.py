"""Comparisons: equal cost, the same pairs, one verdict, and no run twice."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from latentry import cli
from latentry.data import load_train
from latentry.data.imageset import ImageSet
from latentry.data.split import make_split
from latentry.errors import RecipeError, RunError
from latentry.evaluation.evaluate import evaluate
from latentry.files import check_ours
from latentry.pipeline import check_same_images, resume, train, unpretrained
from latentry.recipe import load_recipe
from latentry.report import comparison, figures
from latentry.report.comparison import write_comparison
from latentry.report.page import write_report
from latentry.run import Run
from latentry.studies import compare
from latentry.training import job

pytestmark = pytest.mark.slow

SETTINGS = {
    "data.limit": {},
    "pretrain.max_epochs": 1,
    "pretrain.min_steps_per_epoch": 0,
    "classify.min_steps_per_epoch": 0,
    "pretrain.batch_size": 32,
    "classify.max_epochs": 2,
    "classify.batch_size": 32,
    "classify.learning_rate": 4e-4,
    "precision": "fp32",
}


def quick(toy_folder, **changes):
    return load_recipe("quick", SETTINGS | {"data.source": str(toy_folder)} | changes)


@pytest.fixture(scope="module")
def finished(toy_folder, tmp_path_factory):
    """A comparison of quick with its control, two seeds, two shares of the labels, and its folder."""
    folder = tmp_path_factory.mktemp("comparison")
    content = compare.compare_recipes(
        quick(toy_folder), None, folder, num_seeds=2, budget="flops", labels=[1.0, 0.1], test=False
    )
    return content, folder


def test_pairs_share_split_and_cost(finished):
    content, folder = finished
    assert {path.name for path in (folder / "runs").iterdir()} == {
        f"{name}-{seed}{suffix}"
        for name in ("quick", "quick-control")
        for seed in (0, 1)
        for suffix in ("", "-labels-0.1")
    }
    runs = [Run.open(path).results() for path in (folder / "runs").iterdir()]
    assert len({results["split_sha256"] for results in runs}) == 1
    assert all(results["test"] is None for results in runs)
    epoch = Run.open(folder / "runs" / "quick-control-0").results()["flops"]["classify"]
    epoch /= Run.open(folder / "runs" / "quick-control-0").recipe().classify.max_epochs
    first, second = content["cost"]
    assert abs(first["flops"] - second["flops"]) <= epoch / 2
    assert first["epochs"]["pretrain"] == 1
    assert second["epochs"]["pretrain"] == 0
    assert second["epochs"]["classify"] > first["epochs"]["classify"]


def test_its_numbers_are_those_of_the_runs(finished):
    content, folder = finished
    assert [entry["share"] for entry in content["labels"]] == [0.1, 1.0]
    assert content["share"] == 1
    assert (content["budget"], content["part"], content["seeds"]) == ("flops", "validation", [0, 1])
    for seed in (0, 1):
        accuracies = [
            Run.open(folder / "runs" / f"{name}-{seed}").results()["validation"]["accuracy"]
            for name in ("quick", "quick-control")
        ]
        assert content["differences"][seed] == pytest.approx(accuracies[0] - accuracies[1])
    assert len(content["mcnemar_p"]) == 2
    assert [row["name"] for row in content["per_class"]] == ["circle", "cross", "stripes"]


def test_done_runs_are_not_run_again_and_others_not_overwritten(finished, toy_folder, monkeypatch):
    content, folder = finished
    monkeypatch.setattr(compare, "train", lambda *arguments: pytest.fail("trained again"))
    arguments = {"num_seeds": 2, "budget": "flops", "labels": [0.1, 1.0], "test": False}
    again = compare.compare_recipes(quick(toy_folder), None, folder, **arguments)
    assert again == content
    with pytest.raises(RunError, match=r"quick-0-labels-0\.1 was trained with other settings: choose another folder"):
        compare.compare_recipes(quick(toy_folder, **{"classify.learning_rate": 1e-4}), None, folder, **arguments)
    recipe = Run.open(folder / "runs" / "quick-0").recipe()
    images = load_train(recipe.data)
    fewer = ImageSet(images.images[1:], images.labels[1:], images.class_names)
    with pytest.raises(RunError, match=r"quick-0 was trained on images that its source holds no more"):
        check_same_images(Run.open(folder / "runs" / "quick-0"), fewer, make_split(fewer, recipe.data))


def test_a_stopped_comparison_continues_to_the_same_numbers(finished, toy_folder):
    content, folder = finished
    stopped = Run.open(folder / "runs" / "quick-1")
    before = stopped.results()["validation"]
    stopped.results_file.unlink()
    with pytest.raises(RunError, match=r"quick-1 is not finished"):
        compare.compare_runs(f"{folder}/runs/quick-?", f"{folder}/runs/quick-control-?", test=False)
    again = compare.compare_recipes(
        quick(toy_folder), None, folder, num_seeds=2, budget="flops", labels=[1.0], test=False
    )
    assert again["differences"] == content["differences"]
    assert stopped.results()["validation"] == before


def test_finished_runs_are_paired_by_seed(finished):
    content, folder = finished
    runs = folder / "runs"
    again = compare.compare_runs(f"{runs}/quick-?", f"{runs}/quick-control-?", test=False)
    assert again["budget"] == "as run"
    for key in ("difference", "interval", "mcnemar_p", "per_class", "cost"):
        assert again[key] == content[key]
    for left, right, words in (
        (
            "quick-?",
            "quick-control-0",
            r"quick-1 \(seed 1\) has no partner of its seed, data and split in .*quick-control-0",
        ),
        ("quick-control-0", "quick-?", r"quick-1 \(seed 1\) has no partner"),
        ("quick-*", "quick-control-?", r"names runs of several recipes or settings: narrow it to one way of training"),
        ("quick-[01]*", "quick-control-?", r"names runs of several recipes or settings"),
        ("nothing-?", "quick-control-?", r"there is no run at .*nothing-\?: name a run's folder"),
        ("quick-?", "quick-[01]", r"name the same runs: name two"),
    ):
        with pytest.raises(RunError, match=words):
            compare.compare_runs(f"{runs}/{left}", f"{runs}/{right}", test=False)
    copied = runs.parent / "copy" / "quick-9"
    shutil.copytree(runs / "quick-0", copied)
    shutil.copytree(runs / "quick-0", copied.with_name("quick-8"))
    with pytest.raises(RunError, match=r"quick-8 and .*quick-9 have the same seed and split: narrow"):
        compare.compare_runs(f"{copied.parent}/quick-?", f"{runs}/quick-control-0", test=False)
    results = json.loads((copied / "results.json").read_text())
    (copied / "results.json").write_text(json.dumps(results | {"dataset_sha256": "0"}))
    with pytest.raises(RunError, match=r"quick-9 \(seed 0\) has no partner of its seed, data and split"):
        compare.compare_runs(str(copied), f"{runs}/quick-control-0", test=False)
    with pytest.raises(RunError, match=r"names runs on different images: narrow it to those of one dataset"):
        compare.compare_runs(f"{copied.parent}/quick-?", f"{runs}/quick-control-0", test=False)
    one = compare.compare_runs(f"{runs}/quick-0", f"{runs}/quick-control-0", test=False)
    assert one["interval"] is None
    assert "points of validation accuracy from quick-control in one pair" in one["verdict"]
    assert "Labels given" not in one["verdict"]
    sides = [f"{runs}/quick-0", f"{runs}/quick-0-labels-0.1"]
    fewer = compare.compare_runs(*sides, test=False)
    assert fewer["names"] == sides
    given = [json.loads((Path(side) / "results.json").read_text())["labelled_images"] for side in sides]
    assert given[0] > 8 * given[1] > 0
    said = f"Labels given: {sides[0]} 100 % ({given[0]} images) and {sides[1]} 10 %"
    assert f"{said} ({given[1]} images)." in fewer["notes"]
    older = copied.with_name("older")
    shutil.copytree(sides[1], older)
    results = json.loads((older / "results.json").read_text())
    del results["labelled_images"]  # as it was before runs said how many
    (older / "results.json").write_text(json.dumps(results))
    notes = compare.compare_runs(sides[0], str(older), test=False)["notes"]
    assert f"Labels given: {sides[0]} 100 % ({given[0]} images) and {older} 10 %." in notes


def test_what_is_kept_of_runs_compares_as_they_do(finished, tmp_path, monkeypatch, capsys):
    content, folder = finished
    runs = sorted((folder / "runs").glob("quick*-[01]"))
    script = Path(__file__).parents[2] / "scripts" / "keep.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), *map(str, runs)])
    monkeypatch.chdir(folder)
    runpy.run_path(str(script), run_name="__main__")
    again = compare.compare_runs(f"{tmp_path}/quick-?", f"{tmp_path}/quick-control-?", test=False)
    for key in ("difference", "interval", "mcnemar_p", "per_class", "cost"):
        assert again[key] == content[key]
    assert sum(file.stat().st_size for file in tmp_path.rglob("*")) < 100_000
    assert str(folder) not in "".join(file.read_text() for file in tmp_path.rglob("*.toml"))
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), str(runs[0]), f"{runs[0].parent}/./{runs[0].name}"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(str(script), run_name="__main__")
    assert leaving.value.code == 2
    assert capsys.readouterr().err == f"two of the runs are called {runs[0].name}: rename the folder of one\n"
    before = {file: file.read_bytes() for file in runs[0].iterdir() if file.is_file()}
    monkeypatch.setattr(sys, "argv", [str(script), str(runs[0].parent), str(runs[0])])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(script), run_name="__main__")
    assert "would be kept in its own place, and lose what isn't kept" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in runs[0].iterdir() if file.is_file()}


def test_controls_may_differ_in_epochs_and_nothing_else(finished, tmp_path):
    """As after early stopping, which ends the runs that they are to cost as much as."""
    _, folder = finished
    for seed in (0, 1):
        shutil.copytree(folder / "runs" / f"quick-{seed}", tmp_path / f"quick-{seed}")
        control = shutil.copytree(folder / "runs" / f"quick-control-{seed}", tmp_path / f"quick-{seed}" / "control")
    sides = f"{tmp_path}/quick-?", f"{tmp_path}/quick-?/control"
    epochs = f"max_epochs = {Run.open(control).recipe().classify.max_epochs}"
    recipe = (control / "recipe.toml").read_text()
    (control / "recipe.toml").write_text(recipe.replace(epochs, "max_epochs = 9"))
    assert compare.compare_runs(*sides, test=False)["seeds"] == [0, 1]
    lent = 'encoder_from = "runs/seed1-ae-0"'
    for old, new in (("learning_rate = 0.0004", "learning_rate = 0.0003"), ('encoder_from = ""', lent)):
        assert old in recipe
        (control / "recipe.toml").write_text(recipe.replace(old, new))
        with pytest.raises(RunError, match="names runs of several recipes or settings"):
            compare.compare_runs(*sides, test=False)


def test_other_folders_are_not_written_into(finished, tmp_path, monkeypatch):
    content, _ = finished
    names = ("comparison.json", "runs")
    check_ours(tmp_path / "new", *names)
    check_ours(tmp_path, *names)
    (tmp_path / "page.html").touch()
    for taken in (tmp_path, tmp_path / "page.html"):
        with pytest.raises(RunError, match=r"is there already and holds no comparison.json: choose another --out"):
            check_ours(taken, *names)
    compare.save(content, tmp_path)
    check_ours(tmp_path, *names)
    monkeypatch.setattr(sys, "argv", ["latentry", "compare", "quick", "--out", str(tmp_path / "page.html")])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 2


def test_the_page_says_it(finished, tmp_path):
    content, _ = finished
    compare.save(content, tmp_path)
    stored = json.loads((tmp_path / "comparison.json").read_text())
    assert {"difference", "interval", "mcnemar_p", "per_class", "verdict", "budget"} <= stored.keys()
    page = write_comparison(stored, tmp_path).read_text()
    assert re.search(r"[a-z]\.\s+Runs of one seed share the split", page)
    for words in ("quick against quick-control", "With fewer labels", "McNemar", "Bonferroni", "PFLOP", "circle"):
        assert words in page
    assert {path.name for path in tmp_path.iterdir()} >= {"by-seed.png", "by-class.png", "by-labels.png"}


def test_both_curves_over_the_labels_have_bands(finished, monkeypatch):
    content, _ = finished
    monkeypatch.setattr(figures, "draw", lambda width, height, paint: paint)
    axis = Figure().add_subplot()
    comparison.by_labels(content)(axis, figures.THEMES["light"])
    assert [len(axis.lines), len(axis.collections)] == [2, 2]
    for side, band in enumerate(axis.collections):
        edges = {round(float(y), 6) for path in band.get_paths() for y in path.vertices[:, 1]}
        for entry in content["labels"]:
            reached = entry["sides"][side]
            bounds = reached["accuracy_interval"] or [reached["accuracy"]]  # the seeds may agree
            assert {round(100 * bound, 6) for bound in bounds} <= edges


def test_an_autoencoder_that_is_trained_beside_the_classifier_alone_has_a_control():
    joint = load_recipe("quick", {"pretrain.max_epochs": 0, "control": True})
    control = unpretrained(joint)
    assert control.changed({"name": "", "description": "", "classify.reconstruction_weight": 16.0}) == joint.changed(
        {"name": "", "description": "", "control": False}
    )
    assert not control.trains_decoder


def test_what_cannot_be_compared_is_refused(toy_folder, tmp_path):
    arguments = {"num_seeds": 1, "labels": [1.0], "test": False}
    recipe = quick(toy_folder)

    def refused(first, second, words, budget="flops"):
        with pytest.raises(RecipeError, match=words):
            compare.compare_recipes(first, second, tmp_path / "out", budget=budget, **arguments)
        assert not (tmp_path / "out").exists()

    refused(recipe, recipe, r"both recipes are called 'quick'")
    refused(load_recipe("seed1-cnn"), None, r"seed1-cnn trains no autoencoder or no classifier, so it has no control")
    refused(quick(toy_folder, **{"data.labels": 0.1}), None, r"sets data\.labels = 0\.1 .*: use --labels and --seeds")
    other = unpretrained(recipe)
    moved = other.changed({"data.fold": 1})
    refused(recipe, moved, r"quick and quick-control differ in data\.fold, so they share no split")
    refused(quick(toy_folder, **{"classify.max_epochs": 0}), other, r"quick trains no classifier")
    refused(quick(toy_folder, **{"data.standing": "all-train"}), None, r"trains on every image .*: give --test")
    arguments["num_seeds"] = 0
    refused(recipe, None, r"0 seeds and the shares .* leave nothing to train")
    lent = quick(toy_folder, control=True, **{"pretrain.max_epochs": 0, "pretrain.encoder_from": "runs/quick-0"})
    with pytest.raises(RecipeError, match=r"--minutes 1 can't hold a control of quick, which is also given"):
        train(lent, tmp_path / "out", minutes=1)


def test_each_recipe_may_keep_its_own_epochs_and_the_test_sets_open_last(toy_folder, tmp_path, monkeypatch):
    opened = []
    genuine = compare.evaluate
    monkeypatch.setattr(compare, "evaluate", lambda run: opened.append(run.folder.name) or genuine(run))
    short = quick(toy_folder, **{"classify.max_epochs": 1, "pretrain.max_epochs": 3})
    before = compare.compare_recipes(short, None, tmp_path, num_seeds=1, budget="epochs", labels=[1.0], test=False)
    assert (before["part"], opened) == ("validation", [])
    page = write_report(Run(tmp_path / "runs" / "quick-0"))
    assert "The test set has not been opened" in page.read_text()
    content = compare.compare_recipes(short, None, tmp_path, num_seeds=2, budget="epochs", labels=[1.0], test=True)
    assert "The test set has not been opened" not in page.read_text()
    assert opened == ["quick-0", "quick-control-0", "quick-1", "quick-control-1"]
    assert content["part"] == "test"
    assert [side["epochs"]["classify"] for side in content["cost"]] == [1, 1]
    assert "Descriptive: they did not cost the same" in content["verdict"]
    assert "what is better may just have been given more" in content["verdict"]
    for side, name in zip(content["sides"], ("quick", "quick-control"), strict=True):
        tested = [Run.open(tmp_path / "runs" / f"{name}-{seed}").results()["test"]["accuracy"] for seed in (0, 1)]
        assert side["accuracies"] == tested
    changed = tmp_path / "runs" / "quick-1" / "results.json"
    changed.write_text(json.dumps(json.loads(changed.read_text()) | {"test_sha256": "of other pictures"}))
    with pytest.raises(RunError, match="were asked about other test images"):
        compare.compare_runs(f"{tmp_path}/runs/quick-?", f"{tmp_path}/runs/quick-control-?", test=True)


def test_minutes_hold_a_run_and_its_control(toy_folder, tmp_path, monkeypatch, capsys):
    measured = []
    genuine = job.epoch_seconds
    monkeypatch.setattr(job, "epoch_seconds", lambda *words: measured.append(genuine(*words)) or 1.0)
    monkeypatch.setattr(job, "SECONDS_BESIDE_TRAINING", 0.0)
    recipe = quick(toy_folder, control=True, **{"pretrain.max_epochs": 1, "classify.max_epochs": 2})
    run = train(recipe, tmp_path / "run", minutes=0.2)
    assert min(measured) > 0
    assert len(measured) == 2
    # Half of 12 seconds holds five epochs, of a second each, and the answers.
    assert (run.recipe().pretrain.max_epochs, run.recipe().classify.max_epochs) == (2, 3)
    assert [row["stage"] for row in run.metrics()] == ["pretrain"] * 2 + ["classify"] * 3
    said = (
        "0.2 minutes allow 2 epochs of pretraining (1.0 s each) and 3 of classifying (1.0 s each), and as much for the"
    )
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert run.control.results()["flops"]["classify"] > run.results()["flops"]["classify"]


def test_a_control_is_trained_beside_its_run_and_goes_into_its_report(toy_folder, tmp_path):
    run = train(quick(toy_folder, control=True), tmp_path / "run")
    control = run.control.recipe()
    assert (control.name, control.pretrain.max_epochs, control.control) == ("quick-control", 0, False)
    assert control.classify.reconstruction_weight == 0
    totals = [sum(side.results()["flops"][stage] for stage in ("pretrain", "classify")) for side in (run, run.control)]
    assert totals[1] == pytest.approx(totals[0], rel=0.3)  # half of one of a few epochs
    results = evaluate(run)
    assert run.control.results()["test"] is not None
    page = write_report(run).read_text()
    assert "Against its control" in page
    assert f"{100 * results['test']['accuracy']:.2f} %" in page
    assert f"{100 * run.control.results()['test']['accuracy']:.2f} %" in page

    run.control.results_file.unlink()
    resume(run.folder)
    assert run.control.results()["test"] is None
    assert "Against its control" not in write_report(run).read_text()


def test_a_users_commands(finished, toy_folder, tmp_path, monkeypatch, capsys):
    _, folder = finished
    runs = folder / "runs"
    monkeypatch.chdir(tmp_path)

    def latentry(*arguments):
        monkeypatch.setattr(sys, "argv", ["latentry", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    code, said, _ = latentry(f"{runs}/quick-?", f"{runs}/quick-control-?")
    assert code == 0
    assert said.endswith("report: comparisons/quick-quick-control/index.html\n")
    assert json.loads((tmp_path / "comparisons" / "quick-quick-control" / "comparison.json").read_text())["budget"]
    Path("mine.toml").write_text(quick(toy_folder, name="mine", **{"classify.max_epochs": 1}).to_toml())
    options = "--labels", "0.5,1", "--seeds", "1", "--budget", "epochs", "--test", "--json"
    code, said, _ = latentry("mine.toml", *options)
    content = json.loads(said)
    assert (code, content["budget"], content["part"]) == (0, "epochs", "test")
    assert [entry["share"] for entry in content["labels"]] == [0.5, 1.0]
    assert [side["epochs"]["classify"] for side in content["cost"]] == [1, 1]
    for arguments, words in (
        ([runs / "quick-0"], f"there is no run at {runs}/quick-0/control: name a run's folder"),
        ([runs / "quick-0", "quick"], "names runs and quick a recipe: name two of a kind"),
        (["."], "no recipe called '.'"),
        (["runs/nowhere-0", "x"], "runs/nowhere-0 names runs and x a recipe: name two"),
        (
            ["runs/nowhere-0", "runs/x"],
            "there is no run at runs/nowhere-0: name a run's folder, or a",
        ),
        (["x**", "y"], "no recipe called 'x**'"),
        ([f"{runs}/quick-0", f"{runs}/quick-control-0", "--seeds", "3"], "give only --test, --out and --json beside"),
        (["quick", "--labels", "0,1"], "--labels '0,1' is not a list of shares above 0 and up to 1"),
    ):
        code, said, complaint = latentry(*arguments)
        assert (code, said) == (2, "")
        assert complaint.startswith("latentry: ")
        assert words in complaint
        assert complaint.count("\n") == 1
