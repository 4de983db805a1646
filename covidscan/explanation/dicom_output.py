"""DICOM objects of a study's prediction: a segmentation (SEG), and a measurement report (SR, TID 1500) that cites it.

Both carry the identity of the patient from the series, as an archive needs it.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from etils import epath
from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from covidscan.explanation.involvement import LEFT, LESIONS, RIGHT, Involvement
from covidscan.version import __version__
from tfds_mosmed.errors import UserError, one_line
from tfds_mosmed.scans.archive import files_again
from tfds_mosmed.scans.scan import Scan
from tfds_mosmed.storage import write_whole

NAME = "CovidScan"
OWN_CODES = "99COVIDSCAN"  # DICOM has no code for these concepts
PERCENT_INVOLVED = Code("LUNG_INVOLVED", OWN_CODES, "Percentage of lung involved")
CHEST_CT = Code("24627-2", "LN", "CT Chest")
LUNGS = {RIGHT: Code("3341006", "SCT", "Right lung"), LEFT: Code("44029006", "SCT", "Left lung")}
LESION = Code("52988006", "SCT", "Lesion")
UNICODE = "ISO_IR 192"  # of names of labels, and of every name of a patient
SEG_SERIES, SR_SERIES = 9101, 9102  # numbers; series are told apart by their UIDs
# That an object must have, be they empty (type 2), and that some programs leave out.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


def write_dicom(
    folder: epath.PathLike, name: str, scan: Scan, found: Involvement, probabilities: Mapping[str, float], model: str
) -> list[str]:
    """Write the segmentation and the report of a study.

    Args:
      folder: an existing folder.
      name: prefix of the files' names.
      scan: the study, of a DICOM series.
      found: its involvement. Evidence is no segmentation of lesions: the objects then hold the lungs alone.
      probabilities: of each label, after recalibration.
      model: that predicted, see `covidscan.prediction.prediction.Prediction.model`.

    Returns:
      Names of the files: NAME_seg.dcm, where there are lungs, and NAME_sr.dcm.

    Raises:
      UserError: the study is no DICOM series, or lacks what the objects need.
      OSError: a file cannot be written.
    """
    frames = [number for number, frame in enumerate(scan.frames) if frame is not None]
    if not frames:
        raise UserError("no SEG and SR: they describe DICOM series only")
    paths = list(dict.fromkeys(frame[0] for frame in scan.frames if frame is not None))
    try:
        with files_again(paths) as files:
            sources = [_read(path, scan.spacing_mm[0]) for path in files]
        objects: dict[str, Any] = {}
        seg = _segmentation(scan, found, sources, model) if found.lungs.any() else None
        if seg is not None:
            objects[f"{name}_seg.dcm"] = seg
        objects[f"{name}_sr.dcm"] = _report(found, probabilities, sources, seg, model)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UserError(f"no SEG and SR: the series cannot be read again ({reason}); give its folder") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of highdicom, for what a series lacks
        raise UserError(
            f"no SEG and SR: the series lacks what they need ({one_line(error)}); export it again"
        ) from error
    for file, dataset in objects.items():
        content = io.BytesIO()
        dataset.save_as(content, enforce_file_format=True)
        write_whole(epath.Path(folder) / file, content.getvalue())
    return list(objects)


def _read(path: epath.PathLike, step_mm: float) -> pydicom.Dataset:
    source = pydicom.dcmread(path, stop_before_pixels=True)
    shared = source.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]  # of an enhanced CT
    for measures in (source, *shared[0].get("PixelMeasuresSequence", [])):
        if not measures.get("SliceThickness"):
            measures.SliceThickness = step_mm  # of the segmentation's voxels
    for attribute in _MAY_BE_EMPTY:
        if attribute not in source:
            setattr(source, attribute, "")
    return source


def _segmentation(
    scan: Scan, found: Involvement, sources: Sequence[pydicom.Dataset], model: str
) -> hd.seg.Segmentation:
    labels = (
        np.where(found.counted, found.lungs + 2, found.lungs).astype(np.uint8) if found.kind == LESIONS else found.lungs
    )
    in_slices = scan.to_source_axes(labels)[0].transpose(2, 1, 0)  # (slice, row, column) of the series
    kept = [(number, frame[1]) for number, frame in enumerate(scan.frames) if frame is not None]
    if len(sources) == 1:  # an enhanced CT: its frames in their order
        stored = np.zeros((int(sources[0].get("NumberOfFrames", 1)), *in_slices.shape[1:]), np.uint8)
        for number, frame in kept:
            stored[frame] = in_slices[number]
    else:
        stored = in_slices[[number for number, _ in kept]]
    masks = [(stored == side) | (stored == side + 2) for side in LUNGS]
    if found.kind == LESIONS:
        masks.append(stored > 2)
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack(masks, axis=-1),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=_segments(found.kind, model),
        series_instance_uid=hd.UID(),
        series_number=SEG_SERIES,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        device_serial_number=model,
        content_description="Lungs and lesions" if found.kind == LESIONS else "Lungs",
        series_description="CovidScan: research only, not for diagnosis",
        specific_character_set=UNICODE,
    )


def _segments(kind: str, model: str) -> list[hd.seg.SegmentDescription]:
    algorithm = hd.AlgorithmIdentificationSequence(
        NAME, codes.cid7162.ArtificialIntelligence, __version__, parameters={"model": model}
    )
    structures = [(lung.meaning, codes.SCT.AnatomicalStructure, lung) for lung in LUNGS.values()]
    if kind == LESIONS:
        structures.append(("Lesions", codes.SCT.MorphologicallyAbnormalStructure, LESION))
    return [
        hd.seg.SegmentDescription(
            number, label, category, structure, hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm
        )
        for number, (label, category, structure) in enumerate(structures, 1)
    ]


def _report(
    found: Involvement,
    probabilities: Mapping[str, float],
    sources: Sequence[pydicom.Dataset],
    seg: hd.seg.Segmentation | None,
    model: str,
) -> sr.ComprehensiveSR:
    algorithm = sr.AlgorithmIdentification(NAME, __version__, [f"model {model}", f"threshold {found.threshold:g}"])
    groups: list[Any] = [
        sr.MeasurementsAndQualitativeEvaluations(
            sr.TrackingIdentifier(hd.UID(), "Study"),
            algorithm_id=algorithm,
            finding_sites=[sr.FindingSite(codes.SCT.Lung)],
            measurements=[*_probabilities(probabilities), *_measurements(found, "both")],
        )
    ]
    if seg is not None:
        for number, (side, lung) in enumerate(zip(("right", "left"), LUNGS.values(), strict=True), 1):
            if measurements := _measurements(found, side):
                groups.append(_region(seg, sources, number, lung, algorithm, measurements))
        if found.kind == LESIONS and found.counted.any():
            volume = _measurement(codes.SCT.Volume, found.counted_ml.both, "ml", "milliliter")
            groups.append(_region(seg, sources, len(LUNGS) + 1, LESION, algorithm, volume))
    device = sr.DeviceObserverIdentifyingAttributes(hd.UID(), NAME, NAME, NAME, model)
    report = sr.MeasurementReport(
        sr.ObservationContext(sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=CHEST_CT,
        imaging_measurements=groups,
        referenced_images=sources if len(sources) > 1 else None,  # highdicom describes no frames
    )
    return sr.ComprehensiveSR(
        evidence=[*sources, *([] if seg is None else [seg])],
        content=report,
        series_instance_uid=hd.UID(),
        series_number=SR_SERIES,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=NAME,
        is_complete=True,
        series_description="CovidScan: research only, not for diagnosis",
        specific_character_set=UNICODE,
    )


def _region(
    seg: hd.seg.Segmentation,
    sources: Sequence[pydicom.Dataset],
    segment: int,
    structure: Code,
    algorithm: sr.AlgorithmIdentification,
    measurements: Sequence[sr.Measurement],
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return measurements of a segment."""
    series = sr.SourceSeriesForSegmentation(sources[0].SeriesInstanceUID)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(hd.UID(), structure.meaning),
        referenced_segment=sr.ReferencedSegment(seg.SOPClassUID, seg.SOPInstanceUID, segment, source_series=series),
        finding_type=structure,
        algorithm_id=algorithm,
        measurements=measurements,
    )


def _probabilities(probabilities: Mapping[str, float]) -> list[sr.Measurement]:
    named = [
        # A backslash would part two values.
        (Code(f"P{number}", OWN_CODES, one_line(f"Probability of {label}").replace("\\", "/")[:64]), p)
        for number, (label, p) in enumerate(probabilities.items())
    ]
    return [_measurement(name, p, "1", "no units")[0] for name, p in named]


def _measurements(found: Involvement, side: str) -> list[sr.Measurement]:
    """Return the volume of a lung, or of both, and the percentage that is involved, where they are known."""
    volume = _measurement(codes.SCT.Volume, getattr(found.lung_ml, side), "ml", "milliliter")
    if found.kind != LESIONS:
        return volume
    return [*volume, *_measurement(PERCENT_INVOLVED, getattr(found.percent, side), "%", "percent")]


def _measurement(name: Code, value: float | None, unit: str, meaning: str) -> list[sr.Measurement]:
    return [] if value is None else [sr.Measurement(name, round(value, 6), Code(unit, "UCUM", meaning))]
