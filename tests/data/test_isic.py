"""The ISIC Archive as a source: the sample, what is kept of a record, and a clear end to each trouble."""

import re

import pandas as pd
import pytest
from acquire import acquire
from archive_server import ArchiveServer
from fetching import assert_whole, quick

from tdsp_vision.data import sources
from tdsp_vision.data.sources import fetch_isic
from tdsp_vision.paths import DatasetPaths

QUERIES = {
    "benign": "diagnosis_1:Benign AND image_type:dermoscopic",
    "malignant": "diagnosis_1:Malignant AND image_type:dermoscopic",
}
SEARCH = "/api/v2/images/search/"


@pytest.fixture
def server():
    """60 records, every third one under a licence that is not asked for; pages of 7."""
    with ArchiveServer() as running:
        for number in range(60):
            running.add_record(
                f"ISIC_{number:07d}",
                license="CC-BY-NC" if number % 3 == 0 else ["CC-0", "CC-BY"][number % 2],
                diagnosis_1="Malignant" if number >= 40 else "Benign",
                age_approx=None if number % 5 == 0 else number,
                sex="female",
                patient_id=f"IP_{number // 2:07d}",
                lesion_id=f"{number:04d}",
            )
        running.page_size = 7
        yield running


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "lesions" / "downloads"


def run(folder, server, count=5, seed=0, **changes):
    options = {"queries": QUERIES, "licenses": ["CC-0", "CC-BY"], "patience": quick(), "quiet": True} | changes
    return fetch_isic(folder, server.isic_api, images_per_class=count, seed=seed, **options)


def chosen(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob("[!.]*/*.jpg")}


def test_a_sample_becomes_a_dataset_with_its_metadata(server, folder, tmp_path):
    assert run(folder, server).empty
    table = assert_whole(folder, server.files)
    assert len(table) == 10 and set(table.license) <= {"CC-0", "CC-BY"}
    paths = DatasetPaths(str(tmp_path / "data"), "from_isic")
    manifest = acquire(paths, folder, "isic").set_index("isic_id")
    assert manifest.label.value_counts().to_dict() == {"benign": 5, "malignant": 5}
    assert not len(pd.read_csv(paths.rejected))
    for isic_id, row in manifest.iterrows():
        number = int(isic_id[5:])
        assert row.label == ("malignant" if number >= 40 else "benign")
        assert pd.isna(row.age_approx) if number % 5 == 0 else row.age_approx == number
        assert (row.sex, row.patient_id, row.lesion_id) == ("female", f"IP_{number // 2:07d}", f"{number:04d}")
        assert (row.image_type, row.attribution) == ("dermoscopic", "Hospital, with a comma")
        assert row.archive_bytes == len(server.files[f"/files/{isic_id}.jpg"])


def test_the_sample_is_drawn_from_the_whole_result_by_the_seed(server, folder, tmp_path):
    samples = []
    for seed in range(4):
        run(tmp_path / str(seed), server, seed=seed)
        samples.append(chosen(tmp_path / str(seed)))
    assert len(set(map(frozenset, samples))) == 4
    eligible = {f"{'malignant' if n >= 40 else 'benign'}/ISIC_{n:07d}.jpg" for n in range(60) if n % 3}
    assert set().union(*samples) <= eligible
    run(folder, server, seed=3)
    assert chosen(folder) == samples[3]


@pytest.mark.parametrize("page_size", [7, 100])
def test_pages_repeated_and_reordered_make_no_difference(server, folder, tmp_path, page_size):
    run(tmp_path / "plain", server)
    server.page_size, server.scramble = page_size, True
    server.records.reverse()
    assert run(folder, server).empty
    assert chosen(folder) == chosen(tmp_path / "plain")
    assert (folder / "metadata.csv").read_bytes() == (tmp_path / "plain" / "metadata.csv").read_bytes()


def test_a_huge_result_is_sampled_by_the_ends_of_its_ids(server, folder, monkeypatch):
    monkeypatch.setattr(sources, "MOST_WALKED", 6)
    run(folder, server, count=3)
    parts = [query for query in server.queries if "isic_id:*" in query]
    assert all(re.fullmatch(r"\(diagnosis_1:\w+ AND image_type:dermoscopic\) AND isic_id:\*\d\d", q) for q in parts)
    walked = {query[-2:] for query in parts if "Benign" in query}
    assert len(walked) < 100 and len(assert_whole(folder, server.files)) == 6
    assert {path[-6:-4] for path in chosen(folder) if path.startswith("benign")} <= walked


def test_troubles_of_the_search_that_pass(server, folder, tmp_path):
    run(tmp_path / "plain", server)
    waits = []
    server.fail(SEARCH, 500, "close", (429, {"Retry-After": "3"}), "html")
    run(folder, server, patience=quick(attempts=5, sleep=waits.append))
    assert chosen(folder) == chosen(tmp_path / "plain") and 3 in waits


def test_a_lost_image_fails_the_run_and_is_named(server, folder):
    run(folder, server)
    lost = sorted(chosen(folder))[0]
    (folder / lost).unlink()
    server.fail(f"/files/{lost.split('/')[1]}", 404, forever=True)
    with pytest.raises(ValueError) as caught:
        run(folder, server)
    message = str(caught.value)
    assert "IMAGES_PER_CLASS is 5" in message and "4 of 5 for 'benign'" in message and "ALLOW_SHORTFALL" in message
    assert re.findall(r"\n  (\S+): HTTP 404", message) == [lost.removesuffix(".jpg")]
    assert len(assert_whole(folder, server.files)) == 9
    rejected = run(folder, server, allow_shortfall=True)  # the next one of the sample takes its place
    assert list(rejected.path) == [lost.removesuffix(".jpg")] and "HTTP 404" in rejected.reason[0]
    assert len(assert_whole(folder, server.files)) == 10
    assert server.requests.total() - server.requests[SEARCH] == 10 + 2 + 1  # nothing twice but the lost one


def test_too_few_images_fail_the_run_unless_allowed(server, folder):
    with pytest.raises(ValueError, match="14 of 20 for 'malignant'.*found no more than these"):
        run(folder, server, count=20)
    assert run(folder, server, count=20, allow_shortfall=True).empty
    assert len(assert_whole(folder, server.files)) == 34


@pytest.mark.parametrize(
    "field",
    ["isic_id", "copyright_license", "files.full.size", "metadata.clinical"],
)
def test_a_missing_field_is_named(server, folder, field):
    *parents, last = field.split(".")
    place = server.records[10]
    for parent in parents:
        place = place[parent]
    del place[last]
    with pytest.raises(ValueError, match="has no field") as caught:
        run(folder, server)
    assert f"'{last}" in str(caught.value)
    assert field == "isic_id" or "'ISIC_0000010'" in str(caught.value)
    assert not folder.exists()


def test_pages_that_go_in_a_circle_end(server, folder):
    api = server.isic_api.replace("/api/v2", "/other")
    page = '{"next": "%s/images/search/?cursor=%s", "results": []}'
    server.files["/other/images/search/"] = (page % (api, "again")).encode()
    with pytest.raises(ValueError, match="circle"):
        fetch_isic(folder, api, QUERIES, 5, ["CC-BY"], 0, patience=quick(), quiet=True)
    assert server.requests["/other/images/search/"] < 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licenses": ["CC BY"]}, r"LICENSES is \['CC BY'\]; give one or more of CC-0"),
        ({"queries": {"a/b": ""}}, "ISIC_QUERIES has the label 'a/b'"),
        ({"queries": {"a": "diagnosis:Mole"}}, "HTTP 400 .*diagnosis:Mole.*Couldn't parse search query"),
    ],
)
def test_wrong_parameters(server, folder, changes, message):
    with pytest.raises(ValueError, match=message):
        run(folder, server, **changes)
