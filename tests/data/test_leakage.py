"""Leakage: planted leaks are found and stop the command, merely similar studies do not."""

import json

import nibabel as nib
import numpy as np
import pytest

from covidscan.data import leakage
from covidscan.data.leakage import StudyKeys, check_parts, check_tested
from tests.support import runs
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing import signature

PARTS = {"train": np.array([0, 3]), "validation": np.array([1, 4]), "test": np.array([2, 5])}


def bits(seed):
    return np.random.default_rng(seed).integers(-90, 90, signature.from_texts([]).shape[1]).astype(np.int8)


@pytest.fixture
def keys():
    """Six studies that have nothing in common."""
    ids = [f"study_{number}" for number in range(6)]
    return StudyKeys(ids, [f"{number}" * 64 for number in range(6)], [signature.to_text(bits(n)) for n in range(6)])


def test_a_clean_split_is_described_in_a_sentence(keys):
    sentence = check_parts(keys, PARTS, "mosmed/64x64x32")
    assert sentence.startswith("No study is in two parts (2 train, 2 validation, 2 test studies of mosmed/64x64x32)")
    assert "study ids, voxels (SHA-256) and perceptual hashes" in sentence
    assert f"distance of {signature.MAX_DISTANCE:g}" in sentence


@pytest.mark.parametrize(
    ("trained_on", "dataset", "known"),
    [
        ("mosmed/64x64x32", "mosmed/64x64x32", True),
        ("ct_phantom/tiny", "mosmed/64x64x32", True),
        ("ct_folder/64x64x32", "mosmed/64x64x32", False),
        ("mosmed/64x64x32", "ct_folder/64x64x32", False),
        ("other/64x64x32", "other/64x64x32", False),
    ],
)
def test_it_is_stated_that_patients_were_not_told_apart(keys, trained_on, dataset, known):
    trained = {"train": keys.take([0, 1]), "validation": keys.take([2, 3])}
    sentence = check_tested(trained, keys.take([4, 5]), trained_on=trained_on, dataset=dataset)
    assert ("Patients were not told apart" in sentence) != known
    assert ("Patients were not told apart" in check_parts(keys, PARTS, dataset)) != (
        dataset.startswith(("mosmed", "ct_phantom"))
    )


@pytest.mark.parametrize(("row", "part"), [(3, "train"), (1, "validation"), (5, "test")])
def test_a_study_in_two_parts_is_named(keys, row, part):
    other = "test" if part != "test" else "train"
    parts = PARTS | {other: np.append(PARTS[other], row)}
    with pytest.raises(UserError) as error:
        check_parts(keys, parts, "mosmed/64x64x32")
    first, second = sorted((part, other), key=list(PARTS).index)
    assert f"studies study_{row} ({first}) and study_{row} ({second}) are one study" in str(error.value)


def test_the_same_voxels_under_two_ids_are_named(keys):
    keys.voxels_sha256[5] = keys.voxels_sha256[0]
    with pytest.raises(UserError, match=r"study_0 \(train\) and study_5 \(test\) have the same voxels: remove one"):
        check_parts(keys, PARTS, "mosmed/64x64x32")


def test_nearly_the_same_voxels_are_named_up_to_the_threshold(keys):
    """Bits are turned one by one by moving coefficients across the reference."""
    reference, copy = signature._reference().astype(int), bits(0).astype(int)
    allowed = int(signature.MAX_DISTANCE * len(copy))
    turned = np.where(copy >= reference, reference - 1, reference)
    for count, found in ((allowed, True), (allowed + 1, False)):
        near = np.concatenate([turned[:count], copy[count:]]).astype(np.int8)
        changed = keys._replace(signature=[*keys.signature[:4], signature.to_text(near), keys.signature[5]])
        if found:
            with pytest.raises(UserError) as error:
                check_parts(changed, PARTS, "mosmed/64x64x32")
            words = (
                "study_0 (train) and study_4 (validation) have nearly the same voxels (distance 0.150 of at most 0.15)"
            )
            assert words in str(error.value)
            assert "--manual_dir" in str(error.value)
            assert "\n" not in str(error.value)
        else:
            check_parts(changed, PARTS, "mosmed/64x64x32")


def test_further_pairs_are_counted_and_copies_in_one_part_are_no_leaks(keys):
    same = keys._replace(voxels_sha256=[*keys.voxels_sha256[:2], *keys.voxels_sha256[:2], *keys.voxels_sha256[4:]])
    with pytest.raises(UserError, match=r"study_3 \(train\) and study_1 \(validation\) have the same voxels: remove"):
        check_parts(same, PARTS, "a/b")
    with pytest.raises(UserError, match="and 1 more such pairs: remove"):
        check_parts(same, {"train": np.array([0, 1]), "test": np.array([2, 3])}, "a/b")
    check_parts(same, {"train": np.array([0, 2]), "test": np.array([1, 3])}, "a/b")


def test_an_external_test_is_compared_with_the_development_studies(keys, tmp_path):
    leakage.write(tmp_path, keys, PARTS)
    trained = leakage.read(tmp_path)
    assert trained == {part: keys.take(rows) for part, rows in PARTS.items()}
    fresh = StudyKeys(["study_0", "b"], ["e" * 64, "f" * 64], [signature.to_text(bits(n)) for n in (50, 51)])
    names = {"trained_on": "mosmed/64x64x32", "dataset": "ct_folder/64x64x32"}
    assert "None of the 2 studies of ct_folder/64x64x32" in check_tested(trained, fresh, **names)
    for row, made in ((3, "train"), (4, "validation")):
        copy = fresh._replace(signature=[fresh.signature[0], keys.signature[row]])
        with pytest.raises(UserError, match=rf"study_{row} \({made} of mosmed/64x64x32\) and b \(test\) have nearly"):
            check_tested(trained, copy, **names)
    check_tested(trained, fresh._replace(signature=[fresh.signature[0], keys.signature[5]]), **names)
    with pytest.raises(UserError, match=r"study_0 \(train of mosmed/64x64x32\) and study_0 \(test\) are one study"):
        check_tested(trained, fresh, trained_on="mosmed/64x64x32", dataset="mosmed/64x64x32_full")


def test_studies_in_no_part_do_not_make_a_run_one_of_others(keys, tmp_path):
    leakage.write(tmp_path, keys, {"train": np.array([0, 1]), "validation": np.array([2]), "test": np.array([3])})
    assert leakage.are_those_of(tmp_path, keys)
    assert not leakage.are_those_of(tmp_path, keys.take([0, 1, 2]))
    assert not leakage.are_those_of(
        tmp_path, keys._replace(voxels_sha256=[keys.voxels_sha256[1], *keys.voxels_sha256[1:]])
    )


def test_edited_studies_are_noticed_and_those_of_earlier_versions_read(tmp_path):
    keys = StudyKeys(["a", "b"], ["0", "1"], ["", ""])
    leakage.write(tmp_path, keys, {"train": np.array([0]), "validation": np.array([1]), "test": np.array([], int)})
    assert leakage.read(tmp_path)["validation"].study_id == ["b"]
    path = tmp_path / leakage.FILE
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"train": []}))
    with pytest.raises(UserError, match=r"studies.json is not as training wrote it .*it was edited"):
        leakage.read(tmp_path)
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert leakage.read(tmp_path)["train"].voxels_sha256 == ["0"]


def test_a_run_without_studies_json_raises(tmp_path):
    with pytest.raises(UserError, match=r"studies\.json does not exist"):
        leakage.read(tmp_path)


def write(path, hu, spacing):
    """A volume (slice, row, column) as MosMedData's files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing[2], spacing[1], spacing[0], 1.0])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(hu[:, ::-1].transpose(2, 1, 0)), affine), path)


def test_a_hidden_copy_stops_training(tmp_path):
    """Flipped, noisy and shifted, under another id and class."""
    for number in range(12):
        made = generator.make_phantom(700 + number, ("CT-0", "CT-2")[number % 2], matrix=64)
        write(tmp_path / "raw" / ("normal", "covid")[number % 2] / f"s{number}.nii", made.hu, made.spacing_mm)
    flags = ("--dataset=ct_folder/32x32x16", "--task=classes", "--epochs=1", "--width=8", "--batch_size=4")
    start = (*flags, f"--manual_dir={tmp_path / 'raw'}", f"--workdir={tmp_path / 'run'}")
    copied = generator.make_phantom(701, "CT-2", matrix=64)
    noise = np.random.default_rng(0).normal(0, 25, copied.hu.shape)
    hidden = np.roll(np.rint(copied.hu + noise).clip(-1024, 3000).astype(np.int16), 2, axis=1)[:, :, ::-1]
    seeds = [seed for seed in range(20) if _parts_differ(tmp_path / "raw", seed)]
    write(tmp_path / "raw" / "normal" / "other.nii", hidden, copied.spacing_mm)
    done = runs.run("train", *start, f"--split_seed={seeds[0]}", f"--data_dir={tmp_path / 'data'}", check=False)
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert "covid/s1 (" in line
    assert "normal/other (" in line
    assert "have nearly the same voxels" in line
    assert not (tmp_path / "run").exists()


def _parts_differ(raw, seed):
    """Return whether the split will put the study and its copy, which is still to be written, into two parts."""
    from covidscan.data import splits

    ids = [*(path.relative_to(raw).with_suffix("").as_posix() for path in raw.rglob("*.nii")), "normal/other"]
    parts = splits.assign_parts(ids, [name.split("/")[0] for name in ids], "holdout", seed=seed, num_folds=5, fold=0)
    part_of = {ids[row]: part for part, rows in parts.items() for row in rows}
    return part_of["covid/s1"] != part_of["normal/other"]


def test_an_external_test_with_a_training_study_is_refused(trained, tmp_path):
    kept = json.loads((trained / "studies.json").read_text())
    del kept["sha256"]
    assert sum(len(studies) for studies in kept.values()) == 24
    study_id = kept["train"][0]["study_id"]
    number = int(study_id.split("_")[1])
    category = generator.categories_for(24, "balanced", 0)[number - 1]
    made = generator.make_phantom(number, category, matrix=128)
    smaller = made.hu[:, ::2, ::2]  # half the pixels in each row and column
    write(tmp_path / "raw" / "covid" / "renamed.nii", smaller, np.array(made.spacing_mm) * [1, 2, 2])
    for seed, name in ((901, "normal"), (902, "covid")):
        fresh = generator.make_phantom(seed, "CT-0", matrix=64)
        write(tmp_path / "raw" / name / f"s{seed}.nii", fresh.hu, fresh.spacing_mm)
    flags = [f"--manual_dir={tmp_path / 'raw'}", f"--data_dir={tmp_path / 'data'}"]
    done = runs.run("evaluate", f"--workdir={trained}", "--dataset=ct_folder/32x32x16", *flags, check=False)
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert f"studies {study_id} (train of ct_phantom/tiny) and covid/renamed (test) have nearly the same voxels" in line
    assert not (trained / "evaluations" / "ct_folder_32x32x16-test-best" / "metrics.json").exists()


def test_an_evaluation_states_what_was_compared(trained):
    runs.run("evaluate", f"--workdir={trained}", "--checkpoint=12")
    stored = json.loads((trained / "evaluations" / "ct_phantom_tiny-test-12" / "metrics.json").read_text())
    assert stored["context"]["leak_check"].startswith("No study is in two parts")


def test_a_patient_in_two_parts_is_named_and_known_patients_are_counted(keys):
    patients = ["p", "q", "r", "p", "q", "r"]
    sentence = check_parts(keys, PARTS, "ct_table/64x64x32", patients)
    assert "No patient is in two parts: 3 patients have 6 studies." in sentence
    assert "not told apart" not in sentence
    assert "the patients of the other 2 are not known" in check_parts(keys, PARTS, "a/b", ["p", "", "r", "p", "", "r"])
    assert "Patients were not told apart" in check_parts(keys, PARTS, "ct_table/64x64x32", [""] * 6)
    with pytest.raises(UserError, match=r"study_3 \(train\) and study_5 \(test\) are of one patient"):
        check_parts(keys, PARTS, "ct_table/64x64x32", ["p", "q", "r", "s", "t", "s"])


def test_near_copies_are_dropped_from_the_part_that_matters_less(keys):
    copies = keys._replace(
        voxels_sha256=[keys.voxels_sha256[2], *keys.voxels_sha256[1:3], keys.voxels_sha256[1], *keys.voxels_sha256[4:]],
        signature=[*keys.signature[:4], keys.signature[5], keys.signature[5]],
    )
    parts = PARTS | {"train": np.array([0, 3, 6])}
    more = copies._replace(**{name: [*getattr(copies, name), value] for name, value in (
        ("study_id", "study_6"), ("voxels_sha256", "9" * 64), ("signature", signature.to_text(bits(99))))})  # fmt: skip
    kept, dropped = leakage.drop_copies(more, parts)
    assert {part: rows.tolist() for part, rows in kept.items()} == {"train": [6], "validation": [1], "test": [2, 5]}
    assert dropped == {
        "study_0": "near copies of studies for test, left out of train",
        "study_3": "near copies of studies for validation, left out of train",
        "study_4": "near copies of studies for test, left out of validation",
    }
    sentence = check_parts(more, kept, "a/b", (), dropped)
    assert "1 studies are in no part: near copies of studies for validation, left out of train." in sentence
    with pytest.raises(UserError, match="--on_leak=drop leaves no studies to train"):
        leakage.drop_copies(more, parts | {"train": np.array([0, 3])})
