"""The numbers behind the built-in head: our own table, in millimetres.

The sculpting frame has x to the subject's left, y up and z out of the face; the eyeballs' centres lie at y = 26.
:data:`ORIGIN` is subtracted at the end, so that the finished head is framed by the default camera as portrait data sets
frame theirs: eyes a little above the centre, crown and chin just inside the picture.

Sizes follow the means of published anthropometry for young adults, taken midway between the sexes: head height 224,
length 193, breadth 149, face breadth 134, jaw breadth 102, pupil distance 63, nose 52 × 33, mouth 51.
"""

from __future__ import annotations

import numpy as np

# subtracted from everything: framed at yaw 0 and, the face near the pivot, at 60°
ORIGIN = np.array([0.0, 18.0, -26.0])
CENTRE = np.array([0.0, 15.0, -25.0])  # the head's skin is star-shaped about this point

# ---- the face without nose, eyes and lips: depth z at frontal (x, y); None where another part decides
FACE_X = (0.0, 12.0, 24.0, 36.0, 48.0, 58.0, 65.0)
FACE_DEPTH = {
    88.0: (44.0, 43.0, 39.5, 33.0, 22.0, 7.0, None),
    76.0: (49.0, 48.0, 45.0, 39.0, 28.5, 14.5, None),
    64.0: (51.8, 51.0, 48.4, 42.6, 32.8, 19.6, 5.0),
    54.0: (53.6, 53.2, 50.8, 45.8, 36.4, 23.5, 9.0),
    46.0: (54.0, 53.2, 51.0, 46.8, 38.2, 25.4, 10.5),
    40.0: (51.4, 50.4, 47.6, 44.4, 37.4, 25.6, 11.0),
    33.5: (46.6, 42.8, 41.2, 41.8, 35.4, 24.6, 11.0),
    26.0: (43.0, 38.8, 38.4, 39.2, 32.6, 23.4, 10.6),
    18.0: (44.2, 41.4, 38.6, 37.4, 32.0, 23.6, 11.6),
    10.0: (46.0, 43.6, 40.4, 38.6, 34.0, 25.8, 13.0),
    2.0: (48.0, 46.0, 43.2, 40.8, 36.4, 27.6, 13.5),
    -8.0: (51.5, 49.5, 46.2, 42.2, 36.2, 26.4, 11.5),
    -18.0: (56.0, 53.4, 48.4, 42.4, 34.4, 23.0, 6.0),
    -28.0: (58.4, 56.0, 49.6, 41.8, 32.2, 18.6, None),
    -60.0: (50.4, 48.8, 43.0, 34.0, 19.0, None, None),
    -68.0: (53.0, 50.4, 43.2, 32.0, 13.0, None, None),
    -75.0: (54.2, 51.2, 42.2, 27.2, None, None, None),
    -82.0: (52.2, 49.0, 38.2, None, None, None, None),
}

# ---- jaw, throat, cheek and temple, down to where the neck begins
JAW = np.array(
    [
        (0.0, -88.3, 46.0), (12.0, -87.4, 42.4), (21.5, -84.4, 34.0), (31.8, -78.8, 22.5), (40.8, -71.0, 8.5),
        (47.5, -62.0, -6.0), (53.5, -51.0, -19.5), (58.0, -37.0, -28.0),  # lower border of the mandible to its angle
        (0.0, -89.0, 33.0), (12.0, -88.4, 29.0), (24.0, -84.4, 18.0), (33.5, -78.4, 4.0), (41.0, -69.5, -12.0),
        (0.0, -89.3, 19.0), (14.0, -88.6, 14.0), (26.0, -84.6, 2.0), (35.5, -78.0, -13.0),  # under the jaw
        (53.2, -40.0, 7.2), (58.6, -28.0, 1.5), (63.5, -12.0, -3.0), (67.0, 4.0, -3.5), (68.8, 20.0, -6.0),
        (64.2, -20.0, -19.5), (67.0, -4.0, -24.0), (70.0, 12.0, -28.0), (61.3, -30.0, -36.5),  # cheek before the ear
        (69.0, 36.0, -3.0), (70.2, 52.0, -8.0), (72.3, 40.0, -28.0),  # temple
    ]
)  # fmt: skip
NAPE = np.array(
    [
        (68.5, -14.0, -56.0), (62.0, -34.0, -52.0), (60.5, -22.0, -74.0), (47.0, -20.0, -97.0), (25.0, -18.0, -112.0),
        (0.0, -17.0, -117.5), (54.5, -47.0, -58.0), (43.5, -42.0, -85.5), (23.5, -40.0, -100.0), (0.0, -39.0, -104.5),
    ]
)  # fmt: skip
NECK_RING = np.array(
    [
        (0.0, -91.5, 2.0), (12.5, -90.8, 0.0), (24.0, -88.2, -5.5), (34.0, -83.0, -13.5), (41.0, -76.5, -22.5),
        (46.0, -70.0, -33.5), (48.6, -64.5, -46.0), (48.6, -61.5, -60.0), (46.0, -60.0, -74.5), (38.5, -59.2, -86.5),
        (27.0, -58.5, -95.5), (13.8, -58.0, -99.6), (0.0, -58.0, -100.8),
    ]
)  # fmt: skip

# ---- cranium: a superellipsoid, fuller over the parietal bones
CRANIUM_CENTRE = np.array([0.0, 42.0, -43.0])
CRANIUM_AXES = np.array([72.0, 92.5, 92.5])
CRANIUM_POWER = 2.25
CRANIUM_PARIETAL = 0.045

# ---- nose: balls (centre, radius) and tapered capsules (from, radius, to, radius), joined smoothly
NOSE_BRIDGE = ((0.0, 32.0, 41.2), 8.8, (0.0, 3.0, 61.2), 7.4)
NOSE_TIP = ((0.0, -6.8, 63.4), 9.2)
NOSE_DOME = ((4.6, -8.2, 62.4), 7.4)
NOSE_WALL = ((2.6, 18.0, 42.0), 6.5, (6.6, -4.0, 52.0), 7.8)
NOSE_ALA = ((12.2, -12.6, 52.6), (5.4, 6.8, 9.6))  # centre, semi-axes
NOSE_COLUMELLA = ((0.0, -13.5, 64.5), 4.0, (0.0, -19.2, 56.0), 4.2)
NOSE_BLEND = 5.0
NOSTRIL = ((7.9, -18.2, 58.6), (3.3, 5.6), 24.0)  # centre, semi-axes (across, along), turned inwards by degrees

# ---- eyes
EYE_CENTRE = np.array([31.5, 26.0, 26.0])
EYE_RADIUS = 12.0
EYE_INNER = (17.4, 24.6)  # corner of the lids, frontal
EYE_OUTER = (45.6, 27.2)
LID_UPPER = (6.3, 0.46, 0.75)  # rise above the line of the corners, where along it, roundness
LID_LOWER = (-4.9, 0.58, 0.85)
EYE_OVAL = ((33.2, 26.0), (20.4, 21.4), (22.4, 22.6), 2.35)  # centre, semi-axes (nose, temple), (up, down), power

# ---- lips, from the midline to the corner
LIP_BORDER_UPPER = np.array([(0.0, -33.6, 61.0), (2.2, -32.9, 61.2), (5.2, -32.2, 60.6), (9.0, -33.6, 58.6), (14.5, -36.2, 54.6), (20.0, -39.4, 49.8), (25.4, -42.4, 44.0)])  # fmt: skip
LIP_BORDER_LOWER = np.array([(0.0, -51.8, 55.2), (7.0, -51.2, 54.6), (13.0, -49.3, 52.6), (18.2, -46.6, 49.4), (22.2, -44.2, 46.6), (25.4, -42.4, 44.0)])  # fmt: skip
LIP_CONTACT = np.array([(0.0, -41.6, 58.0), (3.5, -40.9, 57.7), (8.0, -40.7, 56.2), (13.0, -41.4, 53.4), (17.8, -41.9, 49.8), (21.8, -42.2, 46.2), (24.8, -42.4, 43.2)])  # fmt: skip
MOUTH_OVAL = np.array([(0.0, -59.6), (13.0, -59.4), (23.5, -56.4), (30.8, -50.0), (34.0, -42.0), (31.8, -33.4), (26.2, -27.0), (19.0, -23.2)])  # fmt: skip

# ---- ear: outline radius every 30°, from the back, counter-clockwise seen from the subject's left
EAR_CENTRE = np.array([70.8, 6.5, -38.0])
EAR_OUTLINE = (19.0, 23.2, 28.4, 30.2, 26.5, 19.0, 12.8, 12.3, 17.2, 28.0, 26.0, 20.6)

# ---- neck
NECK_BASE_CENTRE = np.array([0.0, -188.0, -84.0])
NECK_BASE_AXES = (63.0, 58.0)
NECK_FLARE = 0.16

# ---- heights of the midline rows of the face, by row of the grid
MIDLINE = {0: 99.0, 1: 89.0, 2: 79.5, 3: 70.0, 4: 61.0, 5: 53.0, 6: 46.0, 7: 39.5, 8: 33.0, 9: 27.0, 10: 21.0, 11: 15.0, 12: 8.5, 26: -64.5, 27: -70.0, 28: -75.5, 29: -81.0}  # fmt: skip
