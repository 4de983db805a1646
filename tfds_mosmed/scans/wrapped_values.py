"""Detection of values that wrapped around: more than the stored bits can hold, as of metal, or less, as of noisy air.

Where a smooth rise goes on beyond the highest value it falls to the lowest one between two pixels, and rises again. In
a picture without that, a fall as steep is part of an edge, whose pixels on either side fall too or are level. 11 bits
hold no more than 1023 HU, so that already dense bone wraps and has holes as dark as air.
"""

import numpy as np

JUMP_HU = 2048  # half of 12 bits
BITS_12_HU = 4096
MIN_WRAPPED_RANGE = 3500  # of all values: those that wrap reach from the lowest to the highest, and most scans do not
MIN_RISE_HU = 150  # on either side of a jump, in the other direction
# In 9 real studies, three of them with metal clipped at 3071 HU, and in sharpened ones with metal added: none, but for
# streaks of 2500 HU with at most 24 and a share of 0.3. In 120 phantoms with pixels of 4 mm: 4. Metal that wrapped has
# 24 and more in nine of ten, screws and clips of a few pixels less.
MIN_OVERFLOWS = 16
MIN_OVERFLOW_SHARE = 0.4  # of all jumps
AIR_BELOW_HU = -700
MIN_SPIKE_HU = 3000  # above both neighbours, which are air: a single pixel, and no metal is as narrow
MIN_UNDERFLOWS = 50  # in real studies none, in phantoms 5, of clips; air with a noise of 10 HU has thousands
RANGE_OF_11_BITS = (1900, 2047)  # of all values; that of a chest with bone is larger unless it was cut off
DARK_BELOW_HU, BRIGHT_ABOVE_HU = -400, 500
HOLE_PIXELS = 3  # from a dark pixel to a bright one on both of its sides
# 8 real studies and one of 115 x 157 pixels have 690 and more with 11 bits, 5 to 23 % of their bright pixels; as they
# are or cut off at 1000 HU at most 27, with six rods and their streaks at most 180 or 0.8 %.
MIN_HOLES, MIN_HOLE_SHARE = 100, 0.03
LIMIT_HU = 8000  # so that differences fit into 16 bits
_UNDERFLOWS = (
    "values below the lowest that was stored seem to have wrapped around, or text is burned in; export it again "
    "without either"
)
_OVERFLOWED = "seem to have wrapped around, beyond the bits that were stored; export it again with more bits"


def describe_wrapped_values(hu: np.ndarray, range_hu: float) -> list[str]:
    """Describe values that wrapped around, a line or none.

    Args:
      hu: (slice, row, column).
      range_hu: from the lowest to the highest value.
    """
    if RANGE_OF_11_BITS[0] <= range_hu <= RANGE_OF_11_BITS[1]:
        return _describe_11_bits(hu)
    if range_hu <= MIN_WRAPPED_RANGE:
        return []
    overflows, edges, underflows = np.sum([_count(plane) for plane in hu], axis=0)
    if underflows >= MIN_UNDERFLOWS:
        return [f"{underflows} single pixels amid air are brighter by over {MIN_SPIKE_HU} HU: {_UNDERFLOWS}"]
    if overflows >= max(MIN_OVERFLOWS, MIN_OVERFLOW_SHARE * (overflows + edges)):
        return [
            f"values fall by over {JUMP_HU} HU amid a rise at {overflows} places: those of metal or bone {_OVERFLOWED}"
        ]
    return []


def _describe_11_bits(hu: np.ndarray) -> list[str]:
    holes, bright, specks = np.sum([_count_holes(plane) for plane in hu], axis=0)
    if specks >= MIN_UNDERFLOWS:
        return [f"{specks} single pixels amid air are as bright as bone: {_UNDERFLOWS}"]
    if holes >= max(MIN_HOLES, MIN_HOLE_SHARE * bright):
        return [f"{holes} pixels amid bone are as dark as air: denser ones {_OVERFLOWED}"]
    return []


def _count(plane: np.ndarray) -> tuple[int, int, int]:
    """Count jumps along the rows of a slice: amid a rise in the other direction, of edges, and up and down again."""
    steps = np.diff(plane.clip(-LIMIT_HU, LIMIT_HU), axis=1)
    row, at = np.nonzero(np.abs(steps[:, 1:-1]) > JUMP_HU)
    if not len(row):
        return 0, 0, 0
    before, jump, after = (steps[row, at + offset].astype(int) for offset in range(3))
    sign = np.sign(jump)
    against, along = np.minimum(-before * sign, -after * sign), np.maximum(before * sign, after * sign)
    is_spike = (jump > MIN_SPIKE_HU) & (after < -MIN_SPIKE_HU) & (plane[row, at + 1] < AIR_BELOW_HU)
    is_overflow = (against > MIN_RISE_HU) & (np.abs(jump) < BITS_12_HU)
    return int(is_overflow.sum()), int((along > MIN_RISE_HU).sum()), int(is_spike.sum())


def _count_holes(plane: np.ndarray) -> tuple[int, int, int]:
    """Count dark pixels between bright ones, along rows or columns; bright pixels; and single bright ones in a row."""
    is_dark, is_bright = plane < DARK_BELOW_HU, plane > BRIGHT_ABOVE_HU
    holes = 0
    for dark, bright in ((is_dark, is_bright), (is_dark.T, is_bright.T)):
        size = dark.shape[1]
        before, after = (
            np.logical_or.reduce([bright[:, first : size - 2 * HOLE_PIXELS + first] for first in starts])
            for starts in (range(HOLE_PIXELS), range(HOLE_PIXELS + 1, 2 * HOLE_PIXELS + 1))
        )
        holes += np.count_nonzero(dark[:, HOLE_PIXELS:-HOLE_PIXELS] & before & after)
    is_air = plane < AIR_BELOW_HU
    specks = is_air[:, :-2] & is_bright[:, 1:-1] & is_air[:, 2:]
    return int(holes), int(np.count_nonzero(is_bright)), int(np.count_nonzero(specks))
