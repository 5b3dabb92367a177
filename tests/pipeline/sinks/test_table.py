"""Tables: the same values as JSON lines, read back by common libraries."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from core.errors import EngineError, SinkError
from pipeline.sinks import json_line, open_table
from pipeline.sinks.table import ROW_GROUP, check_table, columns
from pipeline.types import Frame, People, Result

PICTURE = np.zeros((2, 2, 3), np.uint8)


def result(index: int, people: int, *, source: str = "a.mp4", joints: int = 17, seed: int = 0) -> Result:
    rng = np.random.default_rng([seed, index])
    scores = rng.random((people, joints), np.float32) * (rng.random((people, joints)) > 0.3)
    xy = rng.random((people, joints, 2), np.float32) * 640 * (scores[..., None] > 0)
    people_ = People(xy.astype(np.float32), scores.astype(np.float32), rng.random(people, np.float32))
    return Result(Frame(PICTURE, index, index / 30, source=source), people_)


def write(path: Path, results: list[Result]) -> None:
    with open_table(path) as table:
        for one in results:
            table.write(one, PICTURE)


def expected_rows(results: list[Result]) -> list[list[object]]:
    """The table's rows equal the people of the JSON lines."""
    rows = []
    for line in (json.loads(json_line(one)) for one in results):
        for person in line["people"]:
            joints = [value for joint in person["keypoints"] for value in joint]
            row = [line["source"], line["frame"], line["time_s"], person.get("id"), person["score"]]
            rows.append([*row, *person["bbox"], *joints])
    return rows


RESULTS = [result(0, 2), result(1, 0), result(2, 3), result(0, 1, source='b, "2".mp4')]


def test_the_columns_of_both_joint_sets():
    names = columns(17)
    assert names[:9] == ["source", "frame", "time_s", "id", "score", "bbox_x", "bbox_y", "bbox_w", "bbox_h"]
    assert names[9:12] == ["nose_x", "nose_y", "nose_score"]
    assert names[-1] == "right_ankle_score"
    assert (len(names), len(columns(14))) == (9 + 3 * 17, 9 + 3 * 14)


def test_csv_holds_what_the_json_lines_hold(tmp_path):
    write(tmp_path / "a.csv", RESULTS)
    with (tmp_path / "a.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == columns(17)
    expected = [["" if value is None else str(value) for value in row] for row in expected_rows(RESULTS)]
    assert rows == expected


def test_parquet_holds_what_the_json_lines_hold(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    write(tmp_path / "a.parquet", RESULTS)
    table = pandas.read_parquet(tmp_path / "a.parquet")
    assert list(table.columns) == columns(17)
    assert list(table["source"]) == ["a.mp4"] * 5 + ['b, "2".mp4']
    assert table["id"].isna().all()
    expected = np.array([[row[1], row[2], *row[4:]] for row in expected_rows(RESULTS)], np.float64)
    got = table.drop(columns=["source", "id"]).to_numpy(np.float64)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_duckdb_reads_it(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    write(tmp_path / "a.parquet", RESULTS)
    query = f"select source, count(*), max(score) from '{tmp_path / 'a.parquet'}' group by source order by source"
    assert [row[:2] for row in duckdb.sql(query).fetchall()] == [("a.mp4", 5), ('b, "2".mp4', 1)]


def test_many_rows_are_written_in_groups(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    many = [result(index, 30) for index in range(ROW_GROUP // 30 + 2)]
    write(tmp_path / "a.parquet", many)
    file = parquet.ParquetFile(tmp_path / "a.parquet")
    assert file.metadata.num_rows == 30 * len(many)
    assert file.num_row_groups == 2


def test_coco_results_are_what_pycocotools_takes(tmp_path):
    write(tmp_path / "a.json", RESULTS)
    entries = json.loads((tmp_path / "a.json").read_text())
    assert [entry["image_id"] for entry in entries] == [0, 0, 2, 2, 2, 3]  # the second source's frame 0 comes after 2
    assert [entry["frame"] for entry in entries] == [0, 0, 2, 2, 2, 0]
    rows = expected_rows(RESULTS)
    assert [[*entry["bbox"], *entry["keypoints"]] for entry in entries] == [row[5:] for row in rows]
    coco = pytest.importorskip("pycocotools.coco").COCO()
    coco.dataset = {"images": [{"id": index} for index in range(4)], "categories": [{"id": 1}], "annotations": []}
    coco.createIndex()
    loaded = coco.loadRes(entries)
    assert len(loaded.getAnnIds(imgIds=[2])) == 3


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_nobody_is_a_table_without_rows(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    for name, results in (("none", []), ("nobody", [result(0, 0)])):
        path = tmp_path / f"{name}{suffix}"
        write(path, results)
        if suffix == ".json":
            assert json.loads(path.read_text()) == []
        elif suffix == ".csv":
            assert path.read_text().splitlines() == [",".join(columns(17))]
        else:
            table = pytest.importorskip("pyarrow.parquet").read_table(path)
            assert (table.num_rows, table.column_names) == (0, columns(17))


def test_another_joint_set(tmp_path):
    write(tmp_path / "a.csv", [result(0, 1, joints=14)])
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == ",".join(columns(14))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_a_full_disk(suffix):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    link = Path("/dev/full")
    sinks = __import__("pipeline.sinks.table").sinks.table
    kind = {".csv": sinks.CsvSink, ".parquet": sinks.ParquetSink, ".json": sinks.CocoSink}[suffix]
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    table = kind(link)

    def all_of_it() -> None:
        try:
            table.write(RESULTS[0], PICTURE)
        finally:
            table.close()

    with pytest.raises(SinkError, match=r"/dev/full cannot be written further: No space left on device"):
        all_of_it()
    table.close()


def test_what_is_refused(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"a\.xlsx has no known table suffix; expected one of \.csv, \.parquet, \.json"
    ):
        check_table(Path("a.xlsx"))
    with pytest.raises(SinkError, match=r"none/a\.csv cannot be written: No such file or directory"):
        open_table(tmp_path / "none" / "a.csv")
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(EngineError, match=r"a\.parquet needs pyarrow, which is not installed; pip install"):
        check_table(Path("a.parquet"))
