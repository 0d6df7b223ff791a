"""SPA-VL from parquet and from the JSON that its authors export."""

import pyarrow as pa
import pyarrow.parquet as pq

from align.data.images import load_image
from tests.support.published import (
    spa_vl_records,
    write_json,
)
from tests.support.reading import counted, read


def test_spa_vl_from_parquet_and_from_its_json_export(tmp_path):
    records = spa_vl_records(tmp_path / "export")
    for record in records:
        record["image"] = f"images/{record['image']}"
    write_json(tmp_path / "export" / "train.json", [record | {"id": i} for i, record in enumerate(records)])
    (tmp_path / "hub" / "data").mkdir(parents=True)
    cells = [
        record | {"image": {"bytes": (tmp_path / "export" / record["image"]).read_bytes(), "path": None}}
        for record in records
    ]
    for shard, part in enumerate((cells[:2], cells[2:])):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / "hub" / "data" / f"train-0000{shard}-of-00002.parquet")
    exported, published = read("spa_vl", tmp_path / "export").rows, read("spa_vl", tmp_path / "hub").rows
    for rows in (exported, published):
        assert counted(rows) == {("harmful", "image"): 3}
        assert [row.rejected for row in rows] == [
            "Rudely: What is this cup for?",
            "Rudely: Whose hat is this?",
            "Rudely: May I drink of it?",
        ]
        assert all(row.harmful_response is None for row in rows)  # the worse answer is not surely a harmful one
        assert [load_image(row.images[0], "").tobytes() for row in rows] == [
            load_image(row.images[0], "").tobytes() for row in exported
        ]
    assert [row.id for row in published] == ["train-0", "train-1", "train-2"]
    assert published[0].images[0].bytes is None  # read from its cell when it is decoded
    assert len({row.cluster for row in exported}) == 2


def test_its_validation_split_has_a_folder_of_its_own(tmp_path):
    cells = [
        record | {"image": {"bytes": (tmp_path / "images" / record["image"]).read_bytes(), "path": None}}
        for record in spa_vl_records(tmp_path)
    ]
    (tmp_path / "validation").mkdir()
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "validation" / "validation-00000-of-00001.parquet")
    rows = read("spa_vl", tmp_path, subset="validation").rows
    assert [row.id for row in rows] == ["validation-0", "validation-1", "validation-2"]
