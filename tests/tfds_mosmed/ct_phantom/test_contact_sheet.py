import numpy as np

from tfds_mosmed.ct_phantom.contact_sheet import contact_sheet, study_tile


def test_real_studies_are_between_the_phantoms():
    hu = np.full((10, 40, 40), 40, np.int16)
    hu[:, 10:30, 5:35] = -850
    tile = study_tile(hu, 20, "normal")
    assert tile.shape == (2 * 20 + 14, 40)
    lung, soft = tile[14:34, :20], tile[34:, :20]
    assert 50 < lung[10, 10] < 110
    assert soft[10, 10] == 0
    assert soft[1, 1] > 120
    sheet = contact_sheet([tile] * 12, [np.full_like(tile, 7)] * 4)
    assert sheet.shape == (3 * tile.shape[0], 6 * tile.shape[1])
    assert (sheet[tile.shape[0] : 2 * tile.shape[0], : 4 * 40] == 7).all()
    assert not sheet[tile.shape[0] : 2 * tile.shape[0], 4 * 40 :].any()
