"""What stands in a file is what is read: marks, encodings, lines, workbooks, folders, paths."""

from __future__ import annotations

import ast
import gzip
import os
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

import retailrec
from retailrec.data import RetailData
from retailrec.data.files import read_parts, read_table
from retailrec.datasets import load_dataset
from retailrec.errors import DataError, SettingError

HEADER = "user_id,item_id,descr,time\n"


def lines(*descriptions: str) -> str:
    return HEADER + "".join(
        f"{n},i{n},{text},2024-01-0{1 + n % 9}\n" for n, text in enumerate(descriptions)
    )


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("columns", [None, ["user_id", "item_id"], ["time"], ["descr"]])
@pytest.mark.parametrize(
    "texts",
    [
        ("TEA", 'PAN 12"', "TEA", 'PAN 12"', "RICE"),
        ("TEA", 'PAN 12" STEEL', '5" 6"', "TEA"),
        ('"TEA, GREEN"', 'PAN 12"', '"say ""hi"""', "TEA"),  # both kinds in one file
        ('"TEA"', '"two\nlines"', "TEA"),
        ("", '""', "TEA"),
        ('12""', "TEA"),
        ("it's", "`TEA`", "«ЧАЙ»"),
    ],
)
def test_marks_lose_no_line_whatever_columns_are_read(
    tmp_path: Path, texts: tuple[str, ...], columns: list[str] | None
) -> None:
    found = read_table(write(tmp_path / "r.csv", lines(*texts)), columns=columns)
    assert found.height == len(texts)
    if "time" in found.columns:
        assert found["time"].to_list() == [f"2024-01-0{1 + n}" for n in range(len(texts))]
    if "descr" in found.columns:
        expected = [t[1:-1].replace('""', '"') if t.startswith('"') else t for t in texts]
        assert [t or "" for t in found["descr"]] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines("TEA", '"OPEN', "TEA", "TEA"), "line 3 is not closed"),
        (lines("TEA", '"OPEN', "TEA", 'CLOSE"'), "line 3 is not closed"),
        (lines("TEA", '"PAN 12" STEEL"', "TEA"), "line 3 is not closed"),
        (lines("TEA", "2,50", "TEA"), "line 3 has more fields"),
        (HEADER + "1,a,TEA,2024-01-01\n2,b,TE", "last line .3. ends after 3 of 4 fields"),
        ("sep=,\n" + lines("TEA", "2,50", "TEA"), "line 4 has more fields"),
        (
            "Sales 2024\n\n" + lines("TEA"),
            "line 3 has .* the first line, which is 'Sales 2024'. If the",
        ),
        (lines("TEA", "a\x00b"), "line 3 holds a zero byte"),
        (lines("TEA", "a\rb"), "line 3 holds a carriage return"),
        ("a,b,a\n1,2,3\n", "two columns called 'a'"),
        ("", "is empty"),
        ("\n\n", "is empty"),
    ],
)
@pytest.mark.parametrize("columns", [None, ["user_id"]])
def test_a_fault_is_named_by_its_line(
    tmp_path: Path, text: str, message: str, columns: list[str] | None
) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path / "r.csv", text), columns=columns)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,x\n2,y\n\n",
        "a,b\r\n1,x\r\n2,y\r\n\r\n",
        "a,b\n1,x\n\n\n2,y",
        "a,b\r1,x\r2,y\r",
        'a,b\r1,"x"\r2,"y"\r',
        "\ufeffa,b\n1,x\n2,y\n",
        "a, b \n1,x\n2,y\n",
        "a;b\n1;x\n2;y\n",
        "sep=;\na;b\n1;x\n2;y\n",  # for spreadsheets
        '\ufeff"sep=,"\r\na,b\r\n1,x\r\n2,y\r\n',
        "SEP=\t\na\tb\n1\tx\n2\ty\n",
        "a\tb\n1\tx\n2\ty\n",
        '"a","b"\n"1","x"\n"2","y"\n',
        "a,b\n1,x,,\n2,y,\n",
    ],
)
def test_what_differs_in_form_only_reads_alike(tmp_path: Path, text: str) -> None:
    for path in (
        write(tmp_path / "r.csv", text),
        write(tmp_path / "r.csv.gz", gzip.compress(text.encode())),
    ):
        assert read_table(path).rows() == [(1, "x"), (2, "y")]


@pytest.mark.parametrize("cell", ['="{}"', '"=""{}"""', ' ="{}" '])
def test_cells_that_a_spreadsheet_must_not_read_as_numbers_are_what_they_guard(
    tmp_path: Path, cell: str
) -> None:
    rows = [("0012", "00 7"), ("0013", '5" x'), ("", "x")]
    text = "a;b;c\n" + "".join(";".join([cell.format(a), b, "=1+1"]) + "\n" for a, b in rows)
    table = read_table(write(tmp_path / "guarded.csv", text))
    assert table["a"].to_list() == ["0012", "0013", ""]
    assert table["b"].to_list() == [b for _, b in rows]
    assert table["c"].to_list() == ["=1+1"] * 3


def test_a_line_without_its_last_cells_has_empty_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "a,b,c\n1,x\n2,y,z\n")
    assert read_table(path).rows() == [(1, "x", None), (2, "y", "z")]


@pytest.mark.parametrize(
    ("word", "encodings"),
    [
        ("Sprzedaż", {"cp1250": "cp1250"}),
        ("Möhren", {"cp1252": "cp1252", "cp1250": "cp1252"}),
        ("чай", {"cp1251": "cp1251"}),
    ],
)
def test_an_encoding_is_advised_in_which_words_are_words(
    tmp_path: Path, word: str, encodings: dict[str, str]
) -> None:
    for written, advised in encodings.items():
        path = write(tmp_path / "r.csv", lines("TEA", word).encode(written))
        with pytest.raises(DataError) as error:
            read_table(path)
        assert f"--encoding {advised} reads" in str(error.value)
        if word == "Sprzedaż":
            assert str(error.value).count("--encoding") == 1


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("cp1252", ["Möhren", "mühren"]), ("cp1251", ["чай", "сыр"]), ("shift_jis", ["茶", "米"])],
)
def test_letters_of_another_encoding_are_never_lost(
    tmp_path: Path, encoding: str, words: list[str]
) -> None:
    text = lines("TEA", *words)
    path = write(tmp_path / "r.csv", text.encode(encoding))
    with pytest.raises(DataError, match=r"line 3 is not UTF-8.*--encoding cp125"):
        read_table(path, columns=["user_id"])
    assert read_table(path, encoding=encoding)["descr"].to_list() == ["TEA", *words]
    data = load_dataset("table", path, encoding=encoding)
    assert data.report.kept == 3


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "r.csv", lines("чай").encode(encoding))
    assert read_table(path)["descr"].to_list() == ["чай"]


def test_an_encoding_that_is_none_or_wrong_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", lines("чай"))
    with pytest.raises(SettingError, match="encoding 'klingon' is not known"):
        read_table(path, encoding="klingon")
    with pytest.raises(DataError, match="not written in ascii"):
        read_table(path, encoding="ascii")


def test_a_letter_on_the_edge_of_a_block_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retailrec.data.delimited._BLOCK", 7)
    path = write(tmp_path / "r.csv", lines("чай", '"сыр, ""x"""', 'мёд 12"', "лук"))
    assert read_table(path)["descr"].to_list() == ["чай", 'сыр, "x"', 'мёд 12"', "лук"]
    with pytest.raises(DataError, match="line 3 is not UTF-8"):
        read_table(write(tmp_path / "q.csv", lines("чай").encode() + b"1,a,\xff,2024-01-01\n"))


def test_every_cell_of_a_workbook_counts(tmp_path: Path) -> None:
    import xlsxwriter

    book = xlsxwriter.Workbook(tmp_path / "r.xlsx")
    day = book.add_format({"num_format": "dd/mm/yyyy"})
    for sheet_number, n in enumerate((1500, 3)):
        sheet = book.add_worksheet(f"s{sheet_number}")
        sheet.write_row(0, 0, ["user_id", "item_id", "time", "value"])
        for row in range(n):
            sheet.write(row + 1, 0, row + 5000 * sheet_number if row != 1400 else "C7")
            sheet.write(row + 1, 1, 85123 if row < 1200 else "85123A")
            sheet.write_datetime(row + 1, 2, datetime(2024, 1, 1 + row % 28), day)
            sheet.write(row + 1, 3, 2.5)
    book.add_worksheet("empty")
    book.close()
    table = read_table(tmp_path / "r.xlsx")
    assert table.height == 1503
    assert table["item_id"].value_counts().sort("count")["count"].to_list() == [300, 1203]
    data = load_dataset("table", tmp_path / "r.xlsx")
    assert data.report.kept == 1503
    assert data.report.first == datetime(2024, 1, 1)
    assert data.log["value"].unique().to_list() == [2.5]


@pytest.mark.parametrize("name", ["r.xlsx", "r.parquet", "r.csv.gz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"PAR1", b"\x1f\x8b\x08\x00cut"])
def test_a_damaged_file_is_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(DataError):
        read_table(write(tmp_path / name, content))


def test_a_file_of_a_header_has_no_line(tmp_path: Path) -> None:
    assert read_table(write(tmp_path / "r.csv", HEADER)).height == 0
    with pytest.raises(DataError, match="hold no line"):
        load_dataset("table", tmp_path / "r.csv")


FRAME = pl.DataFrame({"user_id": [1, 2], "item_id": [7, 8], "time": ["2024-01-01", "2024-01-02"]})


def test_folders_of_parts_are_read_as_other_programs_write_them(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    (shop / "transactions").mkdir(parents=True)
    FRAME.write_csv(shop / "items.csv")
    for n in (0, 1):
        FRAME[n : n + 1].write_parquet(shop / "transactions" / f"part-0000{n}-c000.snappy.parquet")
    for junk in ("_SUCCESS", ".part-00000.crc", "_committed_1.parquet"):
        write(shop / "transactions" / junk, b"")
    write(shop / "transactions" / "part-00002.csv", b"")  # Spark writes empty parts
    assert load_dataset("table", shop).report.read == 2
    (tmp_path / "receipts.parquet").mkdir()  # Spark calls folders like files
    FRAME.write_parquet(tmp_path / "receipts.parquet" / "part-0.parquet")
    assert load_dataset("table", tmp_path / "receipts.parquet").report.read == 2


def test_the_names_of_partitions_are_a_column(tmp_path: Path) -> None:
    for day in ("2024-01-05", "2024-01-06"):
        folder = tmp_path / f"time={day}" / "shop=a%20b"
        folder.mkdir(parents=True)
        FRAME.drop("time").write_parquet(folder / "0.parquet")
    table = read_table(tmp_path)
    assert table["shop"].unique().to_list() == ["a b"]
    data = load_dataset("table", tmp_path)
    assert data.report.kept == 4
    assert data.report.last == datetime(2024, 1, 6)
    FRAME.write_csv(tmp_path / "more.csv")
    with pytest.raises(DataError, match="beside partitions"):
        read_table(tmp_path)


def test_parts_whose_columns_stand_in_another_order_are_alike(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "0.parquet")
    FRAME.select("time", "item_id", "user_id").write_csv(tmp_path / "1.csv")
    assert read_table(tmp_path).height == 4


@pytest.mark.parametrize("name", ["a[1]*?.csv", "mit leer.csv", "naïve.csv", "a{b}#%41.csv"])
def test_signs_in_a_path_are_just_letters(tmp_path: Path, name: str) -> None:
    assert read_table(write(tmp_path / name, "a,b\n1,2\n")).rows() == [(1, 2)]
    FRAME.write_parquet(tmp_path / (name + ".parquet"))
    assert read_table(tmp_path / (name + ".parquet")).height == 2


def test_what_can_not_be_opened_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    os.symlink("loop.csv", tmp_path / "loop.csv")
    for path in (
        tmp_path / "none.csv",
        tmp_path / "pipe.csv",
        tmp_path / "loop.csv",
        tmp_path / ("x" * 5000),
        Path("/dev/zero"),
        "nul\0.csv",
        tmp_path / "none.csv" / "deeper.csv",
    ):
        with pytest.raises(DataError):
            read_table(path)
    if os.geteuid():
        path = write(tmp_path / "mine.csv", "a\n1\n")
        path.chmod(0)
        with pytest.raises(DataError, match="no permission"):
            read_table(path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "a,b\n" + "1,2\n" * 10)
    parts = read_parts(path)
    from retailrec.data import files as tables

    (opened,) = tables._open(path, None, None)
    write(path, "a,b\n1,2\n")
    with pytest.raises(DataError, match="10 lines, of which 1 could be read"):
        list(tables._batches(opened, 5))
    parts.close()


def test_very_long_hashes_are_text(tmp_path: Path) -> None:
    text = "user_id,item_id,time\n18446744073709551615,1,2024-01-01\n7,99999999999999999999999,2024-01-02\n"
    data = RetailData.from_frames(read_table(write(tmp_path / "r.csv", text)))
    assert data.users["user_id"].to_list() == ["18446744073709551615", "7"]
    assert data.items["item_id"].to_list() == ["1", "99999999999999999999999"]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_to_nothing_or_a_pipe_among_files_is_not_passed_over(tmp_path: Path, kind: str) -> None:
    """A mount that is gone leaves a link to nothing: its lines would be missing without a word."""
    write(tmp_path / "a.csv", lines("TEA", "RYE"))
    other = tmp_path / "b.csv"
    other.symlink_to(tmp_path / "away" / "b.csv") if kind == "link" else os.mkfifo(other)
    with pytest.raises(DataError, match=r"holds b\.csv beside a\.csv.*Mend the link, or copy the file"):
        load_dataset("table", tmp_path)


def test_a_name_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path / "b") + b"\xff.csv"))
    try:
        write(file, lines("TEA", "RYE"))
    except OSError:
        pytest.skip("this disk takes no such names")
    for path in (file, tmp_path):
        with pytest.raises(DataError, match="can't be opened: 'utf-8' codec can't encode"):
            load_dataset("table", path)
        with pytest.raises(DataError, match="can't be opened"):
            read_table(path)


def test_no_path_is_taken_for_a_pattern() -> None:
    """Polars takes brackets of a folder's name for a pattern, unless it is told not to."""
    package = Path(retailrec.__file__).parent
    wrong = [
        f"{file.relative_to(package)}:{node.lineno}"
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("read_parquet", "scan_parquet", "read_csv", "scan_csv")
        and not any(k.arg == "glob" and ast.literal_eval(k.value) is False for k in node.keywords)
    ]
    assert wrong == []


def test_a_file_without_a_byte_among_others_is_said(tmp_path: Path) -> None:
    good = "user_id,item_id,time\n1,2,2024-01-01\n"
    for name, text in {"a.csv": good, "b.csv": "", "c.csv": good.split("\n")[0]}.items():
        (tmp_path / name).write_text(text)
    (note,) = load_dataset("table", tmp_path).report.notes
    assert note.startswith(f"1 files of {tmp_path} have no byte and so no line: b.csv")
