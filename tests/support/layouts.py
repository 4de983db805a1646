"""Files and folders as public data sets lay them out, with small chests in them."""

from pydicom.uid import generate_uid

from tests.support.chest import chest, dicom_slice, write_series

SPACING = (16.0, 8.0, 8.0)


def small_chest():
    """Draw a chest of 14 slices: int16 HU (slice, row, column) at `SPACING`."""
    return chest()[::2, ::2, ::2]


def tcia_series(folder, patient, study, *, hu=None, spacing=SPACING, **tags):
    """Write a series as the NBIA Data Retriever does, a file a slice, named 1-01.dcm, 1-02.dcm …"""
    hu = small_chest() if hu is None else hu
    names = [f"1-{number:02d}.dcm" for number in range(1, len(hu) + 1)]
    tags = {"PatientID": patient, "StudyInstanceUID": study, **tags}
    return write_series(folder, hu, names, spacing=spacing, series=generate_uid(), **tags)


def one_file(folder, patient, study, modality, **tags):
    """Write a file of another modality, as a structure set, a segmentation or an X-ray."""
    folder.mkdir(parents=True)
    tags = {"PatientID": patient, "StudyInstanceUID": study, "Modality": modality, **tags}
    slice_ = dicom_slice(small_chest()[0], 0, SPACING, series=generate_uid(), **tags)
    slice_.save_as(folder / "1-1.dcm", enforce_file_format=True)
