"""What happens between two runs: files that go, tables that people edit, caches cut off, disks that are full.

One tiny run is made by the modeling notebook's own cells, in this process, with a network of two convolutions. Each row
of a table does something to a copy of it, runs some cells, and says what a person reads. Whatever happens, all that was
finished stays as it was, and nothing half-written is left.
"""

import errno
import html
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from notebook_cells import drawn_dataset, run_cells
from toys import toy_command

from tdsp_vision.__main__ import main
from tdsp_vision.data.manifest import load_manifest
from tdsp_vision.deployment.deployment import Deployment, list_deployments
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.modeling import backbones
from tdsp_vision.modeling.history import log_run, tracking_uri
from tdsp_vision.paths import NOTEBOOKS, DatasetPaths, OutputPaths

OUTPUT_DIR = "out?#%20 {b}"
PLACES = {"DATASET_NAME": "drawn", "OUTPUT_DIR": OUTPUT_DIR}
SETTINGS = {
    "data": {"DATASET_NAME": "drawn"},
    "model": PLACES | {"IMAGE_SIZE": 32, "WEIGHTS": "none", "GROUP_BY": "none", "EPOCHS": 1, "BATCH_SIZE": 8},
    "deploy": PLACES | {"BACKEND": "local", "SAMPLE_COUNT": 2},
}


LOOKS = ("model-83", "model-85", "model-results", "deploy-28", "deploy-34", "deploy-12", "deploy-16", "deploy-40")
LOOKS += ("deploy-42",)  # ids of cells


class Place(NamedTuple):
    """A workspace with a finished run."""

    root: Path

    @property
    def dataset(self) -> DatasetPaths:
        return DatasetPaths(str(self.root / "data"), "drawn")

    @property
    def outputs(self) -> OutputPaths:
        return OutputPaths(str(self.root / OUTPUT_DIR), "drawn")

    @property
    def run(self) -> Path:
        return next(self.outputs.runs.glob("*-first"))

    def file(self, name: str) -> Path:
        """A file of the run, the data set, the cache or the outputs."""
        homes = (self.run, self.dataset.root, self.outputs.features, self.outputs.root)
        return next(file for home in homes for file in home.glob(name))


def cells(stage: str, names: dict, first: str = "", last: str = "", **settings) -> str:
    """`run_cells` with the settings of all runs here, and others, without what only looks at a finished model."""
    return run_cells(stage, names, SETTINGS[stage] | settings, first, last, LOOKS)


def small_network(name: str, size: int, weights: str, input_size: int) -> keras.Model:
    """In place of `build_backbone`: trains in a second."""
    images = keras.Input((input_size, input_size, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    x = keras.layers.Conv2D(8, 5, strides=2, name="stem")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="body")(keras.layers.ReLU()(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="small")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace with a run of the whole notebook, and the names that its cells left."""
    place, names = Place(tmp_path_factory.mktemp("finished")), {}
    drawn_dataset(place.root, 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "build_backbone", small_network)
        patch.setenv("TDSP_WORKSPACE", str(place.root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        names["printed"] = cells("model", names, RUN_NAME="first")
        yield place, names


@pytest.fixture
def place(finished, tmp_path, monkeypatch) -> Place:
    """A copy of the workspace."""
    shutil.copytree(finished[0].root, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    return Place(tmp_path)


def content(place: Place) -> dict[Path, bytes]:
    """All that is finished: the data set and the runs."""
    homes = [place.dataset.root, place.outputs.runs, place.outputs.latest]
    files = [file for home in homes for file in [home, *home.rglob("*")] if file.is_file()]
    return {file: file.read_bytes() for file in files}


def drafts(place: Place) -> list[Path]:
    return [path for path in place.root.rglob(".*") if re.search(r"\.[0-9a-f]{12}(\.|$)", path.name)]


def text(name: str, pattern: str, new: str, count: int = 0) -> Callable[[Place], object]:
    """An edit of a file."""

    def change(place: Place) -> None:
        content, times = re.subn(pattern, new, place.file(name).read_text(), count=count)
        assert times
        place.file(name).write_text(content)

    return change


def cut(name: str, size: int = 500) -> Callable[[Place], object]:
    """What a killed machine or a full disk leaves of a file."""
    return lambda place: place.file(name).write_bytes(place.file(name).read_bytes()[:size])


def gone(name: str) -> Callable[[Place], object]:
    return lambda place: place.file(name).unlink()


def corrections(content: str) -> Callable[[Place], object]:
    return lambda place: place.dataset.corrections.write_text(content)


def overwritten(older: bool) -> Callable[[Place], object]:
    """Another image of the same length; `older` leaves the time as it was."""

    def change(place: Place) -> None:
        image = place.file(IMAGE)
        facts, content = image.stat(), bytearray(image.read_bytes())
        content[-30] ^= 1
        image.write_bytes(content)
        if older:
            os.utime(image, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    return change


def nothing(place: Place) -> None:
    pass


START, STAGE_3, FEATURES, EXPORT = "model-18", "ready", "model-30", "deploy-10"  # the first two before any work
IMAGE, MANIFEST, CACHE = "images/benign/lesion_0002.jpg", "manifest.csv", "*.npz"
CHANGED = f"^1 of 24 images of data/drawn are missing or changed, such as {IMAGE}; run the data acquisition"
LATEST, FITS = {"COMPARE": "latest"}, "^metrics.json of run .*-first does not fit its model: "
GONE = "".join(f"images/malignant/lesion_{number:04}.jpg,EXCLUDE\n" for number in range(40))
# What is done to a finished run, the last cell that is run then, with which settings, and what is said. Where WARNED
# has it, the cells go on; else they end with that sentence.
# fmt: off
ROWS = {
    "image gone": (gone(IMAGE), START, {}, CHANGED),
    "image overwritten, same time": (overwritten(True), FEATURES, {}, "^1 of 24 images are not those that stage 1"),
    "semicolons": (text(MANIFEST, ",", ";"), START, {}, "manifest.csv needs a column 'path', parted by commas;"),
    "rows twice": (text(MANIFEST, r"(images/.*\n)", r"\1\1"), START, {}, f"^Line 3 of .* names {IMAGE} again;"),
    "no label": (text(MANIFEST, ",malignant,", ",,"), START, {}, "^Line 14 of .*manifest.csv has '' as its label"),
    "capitals": (text(MANIFEST, ",benign,", ",Malignant,", 1), START, {}, "^The labels .* differ only in case"),
    "lines cut off": (text(MANIFEST, r".*\n\Z", ""), START, {}, "manifest.csv is not as long as it was; run the data"),
    "class corrected away": (corrections(f"path,label\n{GONE}"), START, {}, "leave no image of 'malignant'; take some"),
    "corrections, no label": (corrections("path,label\na,\n"), START, {}, "corrections.csv needs .* filled in each"),
    "COMPARE, other test": (nothing, START, LATEST | {"TEST_FRACTION": 0.45}, "of its 6 test images and these 1"),
    "RUN unknown": (nothing, STAGE_3, {"RUN": "../runs/r1"}, "^RUN is '../runs/r1'; allowed are 'latest', 'best' and"),
    "runs gone": (lambda place: shutil.rmtree(place.outputs.runs), STAGE_3, {}, "^There is no run in .*; run the"),
    "metrics cut off": (cut("metrics.json"), STAGE_3, {}, "metrics.json is no whole JSON .*: bring a whole one"),
    "threshold edited": (text("metrics.json", '"threshold": ', '"threshold": "",\n"x": '), EXPORT, {}, FITS),
    "image size edited": (text("metrics.json", '"image_size": 32', '"image_size": 48'), EXPORT, {}, FITS),
    "model gone": (gone("model.keras"), EXPORT, {}, "model.keras is missing; name another run, or train anew"),
    "model cut off": (cut("model.keras"), EXPORT, {}, "model.keras is no whole model .*: name another run, or"),
    "SPLIT given": (nothing, START, {"SPLIT": "given"}, "^SPLIT is 'given', and the manifest has no column 'split'"),
    "SPLIT by fold": (text(MANIFEST, ",site\n", ",split\n"), START, {}, "^The column 'split' holds .* or take SPLIT"),
    "one class": (nothing, START, {"MIN_CLASS_SIZE": 99}, "has the classes .*; a classifier needs two"),
    "POSITIVE_CLASS": (nothing, START, {"POSITIVE_CLASS": "wolf"}, "^POSITIVE_CLASS is 'wolf'; allowed are 'auto', ''"),
    "SENSITIVITY": (text(MANIFEST, ",malignant,", ",mole,"), START, {"SENSITIVITY": 0.9}, "^SENSITIVITY is 0.9, "),
}
WARNED = {
    "features cut off": (cut(CACHE), FEATURES, {}, "npz is damaged .* computed anew"),
    "corrections of none": (corrections("path,label\na,b\n"), START, {}, "names 1 images that are not in the manifest"),
    "byte order mark": (text(MANIFEST, r"\A", "\ufeff"), START, {}, "the run history can be written"),
    "previous run not whole": (cut("metrics.json"), START, {}, "compared with no earlier run"),
}
# fmt: on


@pytest.mark.parametrize("what", [*ROWS, *WARNED])
def test_what_changed_underfoot_is_said_in_a_sentence_and_nothing_that_was_finished_is_lost(place, what):
    change, last, settings, says = (ROWS | WARNED)[what]
    change(place)
    before, stage = content(place), "model" if last.startswith("model") else "deploy"
    if what in WARNED:
        said = cells(stage, {}, last=last, **settings)
    else:
        with pytest.raises((ValueError, RunFailed, FileNotFoundError)) as refusal:
            cells(stage, {}, last=last, **settings)
        said = str(refusal.value)
        assert "\n" not in said
    assert re.search(says, said), said
    assert content(place) == before and not drafts(place)


def test_refusals_before_any_work_need_no_network():
    """TensorFlow takes ten times as long to start as all that is needed to look at tables."""
    script = """
import json, sys
for file, last in zip(sys.argv[1::2], sys.argv[2::2]):
    for cell in json.load(open(file))["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec("\\n".join(line for line in source.splitlines() if line.startswith(("import ", "from "))))
            if cell["id"] == last:
                break
print(sorted({"tensorflow", "keras", "mlflow", "imgaug"} & set(sys.modules)))
"""
    first_cells = [str(NOTEBOOKS["model"]), "model-18", str(NOTEBOOKS["deploy"]), "ready"]
    done = subprocess.run([sys.executable, "-c", script, *first_cells], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_any_folder_may_hold_outputs_and_history(finished):
    place, names = finished
    assert f"logged as run {place.run.name} of experiment drawn" in names["printed"]
    client = MlflowClient(tracking_uri(OUTPUT_DIR))
    (logged,) = client.search_runs([client.get_experiment_by_name("drawn").experiment_id])
    read = Path(client.download_artifacts(logged.info.run_id, "metrics.json")).read_text()
    (kept,) = (place.root / OUTPUT_DIR / "mlflow-artifacts").rglob("metrics.json")
    assert read == kept.read_text() == place.file("metrics.json").read_text()


def test_torn_groups_and_few_patients_are_objections_beside_the_score_and_in_the_documents(finished):
    place, names = finished
    documents = ["report", "--dataset", "drawn", "--output-dir", OUTPUT_DIR, "--into", str(place.root / "documents")]
    assert CliRunner().invoke(main, documents).exit_code == 0
    texts = html.unescape("".join(file.read_text() for file in (place.root / "documents").glob("*.md")))
    test = json.loads((place.run / "metrics.json").read_text())["test"]
    assert test["auc_ci"] is None and test["intervals"]["sensitivity"] is None
    for sentence in (r"4 of 10 groups by `patient_id` \(15 images\) lie on two sides", "below 5 cases of a class an"):
        assert re.search(sentence, names["printed"]) and re.search(sentence, " ".join(test["objections"]))
        assert re.search(sentence, texts) and "never on two sides" not in texts


def test_a_c_at_the_end_of_the_list_is_said(finished):
    names = dict(finished[1])
    said = cells("model", names | {"SVM_C": [1e-9, 1e6]}, "model-32", "model-58")
    assert re.search(r"C = (1e-09|1e\+06) is at the end of SVM_C; a (smaller|larger) one may be better", said)


HISTORIES = {"a file store": "./mlruns", "a server that does not answer": "http://127.0.0.1:9", "damaged": ""}


@pytest.mark.parametrize("kind", HISTORIES)
def test_a_history_that_cannot_be_written_is_a_warning_and_the_run_is_logged_later(place, monkeypatch, kind):
    store, later = place.root / OUTPUT_DIR / "mlflow.db", place.run.with_name("later")
    shutil.copytree(place.run, later)
    whole, before = store.read_bytes(), content(place)
    if HISTORIES[kind]:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", HISTORIES[kind])
    else:
        store.write_text("no database")
    said = cells("model", {}, last="model-18")
    assert re.search("WARNING: the run history .* cannot be used .* kept in its folder all the same", said)
    said = log_run(place.outputs, later)
    assert said.startswith("WARNING: the run history ") and "\n" not in said
    command = said.split("in the modeling notebook, ")[1].removesuffix(" adds it later.")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store.write_bytes(whole)
    assert eval(command, {"log_run": log_run, "outputs": place.outputs}) == "logged as run later of experiment drawn"
    assert content(place) == before


def full(*_arguments, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_the_caches_and_not_the_run(place, monkeypatch):
    names = {}
    monkeypatch.setattr(np, "savez", full)
    gone(CACHE)(place)
    said = cells("model", names, last="model-58", CLASSIFIER="dnn")
    assert re.search(r"features/\S+ cannot be written \(No space left on device.*; this run goes on", said)
    assert re.search(r"training/\S+ cannot be written \(No space left on device.*; the training goes on", said)
    assert len(names["history"]) == 1 and not drafts(place)


def test_a_run_that_a_full_disk_kept_from_being_saved_is_saved_later_and_a_new_rate_is_a_new_training(
    finished, place, monkeypatch
):
    """Cells that are run again, with another rate, train from the starting weights and say so in the run's folder."""
    names, before = {}, content(place)
    cells("model", names, last="model-100", CLASSIFIER="dnn", RUN_NAME="refined")
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", full)
        with pytest.raises(OSError, match="No space left on device"):
            cells("model", names, "model-104")
    assert content(place) == before and not drafts(place)
    checkpoints = list(place.outputs.training.glob("*.npz"))
    assert len(checkpoints) == 1  # another kernel goes on from here
    cells("model", names, "model-104")
    names["LEARNING_RATE"] = 1e-9
    cells("model", names, "model-58")
    first, second = sorted(place.outputs.runs.glob("*-refined*"))
    rates = [json.loads((run / "parameters.json").read_text())["LEARNING_RATE"] for run in (first, second)]
    assert rates == [5e-4, 1e-9]
    stems = [keras.models.load_model(run / "model.keras").get_layer("stem").get_weights()[0] for run in (first, second)]
    start = names["backbones"][0].get_layer("stem").get_weights()[0]
    assert np.abs(stems[0] - start).max() > 1e-4 > np.abs(stems[1] - start).max()
    after = content(place)
    assert all(after[file] == before[file] for file in before if place.run in file.parents)
    assert not list(place.outputs.training.glob("*.npz"))


def test_two_runs_of_one_data_set_at_once_report_their_own(tmp_path):
    def start(name: str) -> subprocess.Popen:
        settings = ("--stage", "data", "--stage", "model", "-p", "CLASSIFIER", "svm", "-p", "RUN_NAME", name)
        environment = os.environ | {"TDSP_WORKSPACE": str(tmp_path)}
        return subprocess.Popen(
            toy_command(tmp_path, "run", *settings), stdout=subprocess.PIPE, text=True, env=environment
        )

    started = {name: start(name) for name in ("one", "other")}
    said = {name: process.communicate(timeout=120)[0] for name, process in started.items()}
    for name, text in said.items():
        assert re.findall(r"\d{8}-\d{6}-([a-z]+)", text) == [name], said


def test_corrections_edited_by_hand_while_the_widget_is_open_are_merged(place):
    manifest = load_manifest(place.dataset, corrected=False)
    mine, theirs, both = manifest.path[:3]
    place.dataset.corrections.write_text(f"path,label,who\n{both},malignant,Ann\n")
    names = {"dataset": place.dataset, "given": manifest}
    cells("data", names, "data-correct", "data-correct")
    names["annotation"].state.relabel([names["in_order"].path.tolist().index(mine)], "malignant")
    with place.dataset.corrections.open("a") as file:
        file.write(f"{theirs},EXCLUDE,Bo\n")
    for _ in range(2):  # a cell that is run again changes nothing
        cells("data", names, "data-correct-write", "data-correct-write")
        lines = place.dataset.corrections.read_text().splitlines()
        assert lines == ["path,label,who", f"{both},malignant,Ann", f"{theirs},EXCLUDE,Bo", f"{mine},malignant,"]
    assert len(names["manifest"]) == 23
    names["annotation"].state.undo()
    cells("data", names, "data-correct-write", "data-correct-write")
    assert place.dataset.corrections.read_text().splitlines() == lines[:-1]


@pytest.fixture(scope="module")
def kept(finished, tmp_path_factory):
    """A copy of the workspace in which notebook 3 left its service running, on a fixed port."""
    place = Place(tmp_path_factory.mktemp("kept"))
    shutil.copytree(finished[0].root, place.root, dirs_exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDSP_WORKSPACE", str(place.root))
        said = cells("deploy", {}, KEEP_RUNNING=True, PORT=port)
        yield place, port, said
        Deployment(place.outputs, "drawn").delete()


def served(place: Place) -> list[tuple]:
    """Process, port and version of each server below the workspace."""
    deployments = list_deployments(place.outputs.root.parent)
    return [(s.process.pid, s.port, d.client().version()) for d in deployments for s in d.services()]


def test_what_was_asked_to_be_kept_is_left_and_nothing_else(kept):
    place, port, said = kept
    assert [server[1:] for server in served(place)] == [(port, 1)]
    assert f"drawn/drawn on local: version 1 answers at http://127.0.0.1:{port}" in said
    assert [path.name for path in place.outputs.serving("drawn").glob("[0-9]*")] == ["1"]


def test_a_second_run_beside_a_kept_service_updates_it_in_place_and_leaves_it(kept):
    before = served(kept[0])
    cells("deploy", {}, PORT=kept[1])
    assert served(kept[0]) == before


@pytest.mark.parametrize("name", ["drawn", "another"])
def test_a_port_that_is_taken_is_refused_before_anything_is_exported(kept, name):
    place, port, _ = kept
    before = served(place)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1] if name == "drawn" else port
        with pytest.raises(ParameterError, match=f"^PORT is {taken}, which another program uses; name another"):
            cells("deploy", {}, last="deploy-20", MODEL_NAME=name, PORT=taken)
    assert served(place) == before and not place.outputs.serving("another").exists()
