"""Tables of studies: every mistake by line and column, and what spreadsheets write."""

import random

import pytest

from tfds_mosmed.ct_table.study_files import find_mistakes
from tfds_mosmed.ct_table.table import check_table, read_table
from tfds_mosmed.errors import UserError

HEADER = "path,label,patient,site,split,weight,age"


@pytest.fixture
def cohort(tmp_path):
    """Rows of 100 studies of 60 patients at 3 sites, whose files are there, empty."""
    rows = []
    for number in range(100):
        patient = number % 60
        name = f"{'abc'[patient % 3]}/study_{number:03d}.nii.gz"
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        label, part = ("covid", "normal")[patient % 2], ("train", "train", "val", "test")[patient % 4]
        rows.append([name, label, f"Doe {patient}", f"site {'abc'[patient % 3]}", part, "1.5", str(20 + patient)])
    return tmp_path, rows


def _write(folder, rows, header=HEADER):
    path = folder / "studies.csv"
    path.write_text("\n".join([header, *(row if isinstance(row, str) else ",".join(row) for row in rows)]) + "\n")
    return path


def _mistakes(folder, content: str | bytes):
    path = folder / "studies.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(one.line, one.column) for one in read_table(path).mistakes]


def test_ten_planted_mistakes_are_each_named_by_line_and_column_and_no_patient_is(cohort):
    folder, rows = cohort
    planted = [
        (0, "label", ""), (1, "path", "../elsewhere.nii.gz"), (1, "path", "a/none.nii.gz"), (0, "path", None),
        (1, "label", "Covid"), (1, "split", "holdout"), (1, "weight", "heavy"), (1, "split", "switched"),
        (0, "label", "switched"), (1, "patient", ""),
    ]  # fmt: skip
    names = HEADER.split(",")
    expected = []
    for at, (_, column, value) in zip(random.Random(0).sample(range(61, 100), 10), planted, strict=True):
        row, position = rows[at], names.index(column)
        if value is None:  # the study of another row
            row[position] = rows[1][position]
            row[names.index("label")] = rows[1][names.index("label")]
        elif value == "switched" and column == "split":
            row[position] = "test" if row[position] != "test" else "train"
        elif value == "switched":  # another label for the study of another row
            row[names.index("path")] = rows[2][names.index("path")]
            row[position] = "normal" if rows[2][position] == "covid" else "covid"
        else:
            row[position] = value
        expected.append((at + 2, column))
    table = read_table(_write(folder, rows))
    mistakes = find_mistakes(table, folder / "root")
    with pytest.raises(UserError) as caught:
        check_table(table, mistakes)
    message = str(caught.value)
    assert sorted((one.line, one.column) for one in {*table.mistakes, *mistakes}) == sorted(expected), message
    assert "10 mistakes" in message
    assert "studies.csv" in message
    assert all(f"line {line}, column {column}: " in message for line, column in expected)
    assert "Doe" not in message.title()
    assert "Doe" not in repr(table.rows).title()


def test_a_right_table_has_no_mistakes(cohort):
    folder, rows = cohort
    table = read_table(_write(folder, rows))
    check_table(table, find_mistakes(table, folder / "root"))
    assert len({row.patient for row in table.rows}) == 60
    assert {row.site for row in table.rows} == {"site a", "site b", "site c"}
    assert {row.split for row in table.rows} == {"train", "validation", "test"}
    assert table.rows[3].weight == 1.5
    assert table.rows[3].groups == {"age": "23"}


EXPORTS = {
    "bom": "\ufeffpath,label,age\na.nii,ä,1.5\nb.nii,n,2\n".encode(),
    "semicolons, decimal commas": "path;label;age\r\na.nii;ä;1,5\r\nb.nii;n;2\r\n;;\r\n".encode(),
    "tabs": "path\tlabel\tage\na.nii\tä\t1.5\nb.nii\tn\t2\n\n\n".encode(),
    "utf-16, as Excel's text": "path\tlabel\tage\r\na.nii\tä\t1.5\r\nb.nii\tn\t2\r\n".encode("utf-16"),
    "latin-1": "path,label,age\na.nii,ä,1.5\nb.nii,n,2\n".encode("latin-1"),
    "quotes": '"Path ","LABEL"," age"\n"a.nii","ä","1.5"\n"b.nii",n,"2"\n'.encode(),
    "separator line": "sep=;\r\npath;label;age\r\na.nii;ä;1.5\r\nb.nii;n;2\r\n".encode(),
    "old Mac": "path,label,age\ra.nii,ä,1.5\rb.nii,n,2".encode(),
    "pandas": ",path,label,age\n0,a.nii,ä,1.5\n1,b.nii,n,2\n".encode(),
    "pandas, twice": "Unnamed: 0,path,label,age\n0,a.nii,ä,1.5\n1,b.nii,n,2\n".encode(),
    "trailing separators": "path,label,age,,\na.nii,ä,1.5,,\n\nb.nii,n,2,,,\n".encode(),
    "empty columns": "path,site,label,age,mask\na.nii,,ä,1.5,NA\n./b.nii,NA,n,2,nan\n".encode(),
}


@pytest.mark.parametrize("content", EXPORTS.values(), ids=EXPORTS)
def test_exports_of_spreadsheets_are_the_same_table(tmp_path, content):
    path = tmp_path / "studies.csv"
    path.write_bytes(content)
    table = read_table(path)
    assert not table.mistakes
    assert [(row.path, row.label, row.groups) for row in table.rows] == [
        ("a.nii", "ä", {"age": "1.5"}), ("b.nii", "n", {"age": "2"}),
    ]  # fmt: skip
    assert table.columns == ("path", "label")
    assert table.is_utf8 is (b"\xe4," not in content)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\na.nii,x,y\n", [(2, "")]),
        ("path,label\na.nii\n", [(2, "")]),
        ('path,label,age\n"a.nii,x,3\nb.nii,y,4\n', [(2, "")]),
        ('path,label\n"a\n.nii",x\nb.nii,y\nc.nii,\n', [(2, "path"), (5, "label")]),
        ("path,label\n\n\na.nii,x\n,y\n", [(5, "path")]),
        ("path\nC:\\ct\\a.nii\n/ct/b.nii\n..\\c.nii\ngs://b/d.nii\n.\n", [(line, "path") for line in (2, 3, 4, 5, 6)]),
        ("path,label\nct\\a.nii,x\nct/a.nii.gz,x\n", [(3, "path")]),
        ("path,label\nct/a,x\nct/a/b.nii,x\n", [(3, "path")]),
        ("path,label\na.nii,x\na.nii,y\n", [(3, "label")]),
        ("path,label\na.nii,x|y\nb.nii,x||y\nc.nii,x|x\nd.nii,y|X\n", [(3, "label"), (4, "label"), (5, "label")]),
        ("path,label\na.nii,0\nb.nii,NaN\n", [(3, "label")]),
        ("path,label\n" + "".join(f"{n}.nii,{n / 7}\n" for n in range(20)) + "z.nii,high\n", [(22, "label")]),
        ("path,label\n" + "".join(f"{n}.nii,{'ab'[n % 2]}\n" for n in range(20)) + "z.nii,1\n", [(22, "label")]),
        ('path,label\na.nii,"0,5"\n', [(2, "label")]),
        ("path,label,Path\na.nii,x,a\n", [(1, "Path")]),
        ("path,label,PatientID\na.nii,x,a\n", [(1, "PatientID")]),
        ("path,label,birth_date\na.nii,x,a\n", [(1, "birth_date")]),
        ("path,label,pat_id,CV fold,Mask_Path\na.nii,x,a,0,m.nii\n", [(1, "CV fold"), (1, "Mask_Path"), (1, "pat_id")]),
        ("path,label,subset\na.nii,x,Train\nb.nii,x,val\nc.nii,y,\n", [(1, "subset")]),
        ("path,label,split,exam\na.nii,x,train,test\nb.nii,x,test,retest\n", []),
        ("path,label,mask\na/P1,x,a/P1.nii.gz\na/P2.zip,y,a/P2.nii.gz\n", []),
        ("path,label,fold,split\na.nii,x,0,train\n", [(1, "split")]),
        ("path,label,split\na.nii,x,0\n", [(2, "split")]),
        ("path,label,fold\na.nii,x,test\nb.nii,x,-1\n", [(2, "fold"), (3, "fold")]),
        ("path,label,fold,patient\na.nii,x,0,P1\nb.nii,x,1,p1 \n", [(3, "fold")]),
        ("path,label,weight\na.nii,x,0\nb.nii,x,inf\nc.nii,x,\n", [(2, "weight"), (3, "weight"), (4, "weight")]),
        ("path,label,weight\na.nii,x,1e308\nb.nii,x,1e-9\nc.nii,x,1e6\n", [(2, "weight"), (3, "weight")]),
        ("path,label,site\na.nii,x,Rome\nb.nii,x,rome\nc.nii,x,rome\nd.nii,x,\n", [(2, "site")]),
        ("path,label\na.nii,x\nb.nii,x\u200b\nc.nii,y\n", [(3, "label")]),
        ("path,label,fold,patient\na.nii,x,0,P1\nb.nii,x,1,P1\u200b\n", [(3, "fold")]),
        ("path,label,patient\na.nii,x,007\nb.nii,y,7\nc.nii,y,7.0\nd.nii,y,70\n", [(3, "patient"), (4, "patient")]),
        ("path,label,mask\na.nii.gz,x,a.nii.gz\nb.nii.gz,x,m.nii\nc.nii.gz,y,m.nii\n", [(2, "mask")]),
        ("path,label,patient,mask\na.nii,x,P1,m.nii\nb.nii,x,P1,m.nii\nc.nii,y,P2,m.nii\n", [(4, "mask")]),
        ("path,label\n", [(1, "")]),
    ],
)  # fmt: skip
def test_mistakes_have_line_and_column(tmp_path, text, expected):
    assert _mistakes(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04zip", "Excel workbook"),
        (b"file,label\na.nii,x\n", "has no column path but file, label"),
        (b"", "has no column path but nothing"),
        (b"path,label\na\0.nii,x\n", "is no text"),
        (b"path,label\n\x81.nii,x\n", "is no text"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, reason):
    path = tmp_path / "studies.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        read_table(tmp_path / "none.csv")


def test_numbers_are_labels_in_one_form(tmp_path):
    path = tmp_path / "studies.csv"
    path.write_text("path;label;weight\na.nii;1.0;0,5\nb.nii;0,25;1\nc.nii;02;2\n")
    table = read_table(path)
    assert [(row.label, row.weight) for row in table.rows] == [("1", 0.5), ("0.25", 1), ("2", 2)]


def test_files_of_a_table_are_looked_for(tmp_path):
    for name in ("A.nii", "b.nii.gz", "c.nrrd", "m.nii.gz", "d\u00e4.nii"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    path = tmp_path / "studies.csv"
    path.write_text(
        "path,mask\na.nii,\nb,\nc.nrrd,\nempty,\nb.nii.gz,m.nii.gz\nA.nii,none.nii\nda\u0308.nii,\n", "utf-8"
    )
    found = {(one.line, one.column): one.reason for one in find_mistakes(read_table(path), tmp_path)}
    assert found.keys() == {(2, "path"), (3, "path"), (4, "path"), (5, "path"), (7, "mask"), (8, "path")}
    assert r"but 'd\xe4.nii' is" in found[8, "path"]
    assert "'A.nii' is" in found[2, "path"]
    assert "add .nii.gz" in found[3, "path"]
    assert ".nrrd files are not read" in found[4, "path"]


def test_only_the_first_mistakes_are_shown(tmp_path):
    path = tmp_path / "studies.csv"
    path.write_text("path,label,age\n" + "".join(f"{n}.nii,,1\n" for n in range(50)) + "z.nii,a,1")
    with pytest.raises(UserError, match=r"50 mistakes: line 2, .*line 21, column label: is empty; and 30 more"):
        check_table(read_table(path))


def test_an_empty_label_is_none_where_others_are_several(tmp_path):
    table = tmp_path / "studies.csv"
    table.write_text("path,label\na.nii,x|y\nb.nii,\nc.nii,y\n")
    read = read_table(table)
    assert not read.mistakes
    assert [row.label for row in read.rows] == ["x|y", "none", "y"]
    table.write_text("path,label\na.nii,x|y\nb.nii,NA\nc.nii,y\n")
    assert [str(mistake) for mistake in read_table(table).mistakes] == [
        "line 3, column label: is 'NA', which stands for no value"
    ]
    table.write_text("path,label\na.nii,x\nb.nii,\n")
    assert "is empty" in str(read_table(table).mistakes)
