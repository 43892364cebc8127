"""Faces drawn by rule, for a dataset without download or licence (sets/rendered.py): for tests and quick studies.

A face is a set of curves on a half-ellipsoid. Emotions move brows, eyes, nose and mouth by action units of the Facial
Action Coding System (Ekman and Friesen 1978; combinations after Friesen and Ekman's EMFACS); yaw, pitch and roll turn
the ellipsoid; identity, skin, light, hair, occlusion and background are independent of all labels. Results on these
faces say nothing about real ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.data.reading import EMOTIONS

Array = NDArray[np.float64]
Colour = tuple[float, float, float]

MAX_ANGLE = 45.0
"""Largest yaw, pitch and roll, in degrees; most faces turn far less."""
SHIFT = 4
"""Fractional bits of the coordinates that OpenCV draws with, so that geometry moves by less than a pixel."""

# Action units of each emotion, with their strength at full intensity: AU1 inner brow up, AU2 outer brow up, AU4 brows
# down and together, AU5 upper lid up, AU6 cheeks up, AU7 lids tight, AU9 nose wrinkled, AU10 upper lip up, AU12 mouth
# corners up, AU15 corners down, AU20 mouth stretched, AU24 lips pressed, AU26 jaw down.
ACTION_UNITS: dict[str, dict[int, float]] = {
    "neutral": {},
    "happiness": {6: 0.9, 12: 1.0, 26: 0.25},
    "sadness": {1: 1.0, 4: 0.4, 7: 0.3, 15: 1.0},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.9, 26: 1.0},
    "fear": {1: 1.0, 2: 0.5, 4: 0.6, 5: 1.0, 20: 1.0, 26: 0.4},
    "disgust": {4: 0.5, 7: 0.6, 9: 1.0, 10: 1.0, 15: 0.4},
    "anger": {4: 1.0, 5: 0.4, 7: 0.5, 24: 1.0},
    "contempt": {12: 1.0, 24: 0.3},  # on one side of the face only
}
AFFECT_ANGLES = {
    "happiness": 8,
    "surprise": 70,
    "anger": 99,
    "fear": 116,
    "disgust": 150,
    "contempt": 170,
    "sadness": 208,
}
"""Degrees on the circumplex, from pleasure (0) to arousal (90), after Russell 1980, "A circumplex model of affect": his
happy, astonished, angry, afraid and sad. He did not place disgust and contempt; these two angles are chosen between
"frustrated" (141) and "miserable" (189). Neutral is the centre."""


def render_faces(count: int, size: int, seed: int, start: int = 0) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]:
    """Draw faces start … start + count − 1 of a seed; face i depends on (seed, i, size) alone.

    Returns images uint8 [count, size, size, 3] (RGB), and labels:

    - emotion: int64 [count], index into `EMOTIONS`;
    - gender: int64 [count], 0 male, 1 female; a class of face shapes;
    - pose: float32 [count, 3], yaw, pitch, roll in degrees;
    - affect: float32 [count, 2], valence and arousal, each −1 to 1: the emotion's point on the circumplex
      (`AFFECT_ANGLES`), as far from the centre as the expression is intense (0.5 to 1).
    """
    images = np.empty((count, size, size, 3), np.uint8)
    emotion, gender = np.empty(count, np.int64), np.empty(count, np.int64)
    pose, affect = np.empty((count, 3), np.float32), np.empty((count, 2), np.float32)
    for row in range(count):
        rng = np.random.default_rng([seed, start + row])
        face = _Face(rng, size)
        images[row] = face.draw()
        emotion[row], gender[row], pose[row] = face.emotion, face.gender, face.angles
        affect[row] = _affect(EMOTIONS[face.emotion], face.intensity)
    return images, {"emotion": emotion, "gender": gender, "pose": pose, "affect": affect}


def _affect(emotion: str, intensity: float) -> tuple[float, float]:
    if emotion == "neutral":
        return 0.0, 0.0
    angle = math.radians(AFFECT_ANGLES[emotion])
    return intensity * math.cos(angle), intensity * math.sin(angle)


@dataclass(frozen=True)
class _Side:
    """One half of the face."""

    sign: int
    """−1 left in the image, +1 right."""
    units: dict[int, float]
    """Action unit → strength."""

    def __getitem__(self, unit: int) -> float:
        return self.units.get(unit, 0.0)


class _Face:
    """One face: its random draws and the image of them. Unit of length: about the height from centre to chin."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size = rng, size
        self.emotion = int(rng.integers(len(EMOTIONS)))
        self.gender = int(rng.integers(2))
        self.angles = np.clip(rng.normal(0.0, (14.0, 8.0, 7.0)), -MAX_ANGLE, MAX_ANGLE).astype(np.float32)
        self.left, self.right = self._sides()
        female = self.gender == 1
        u = rng.uniform
        self.width = u(0.66, 0.76) + (0.0 if female else 0.05)
        self.jaw = u(0.50, 0.66) if female else u(0.72, 0.92)  # width of the jaw as a share of the cheeks'
        self.eye_x, self.eye_y, self.eye_w = u(0.28, 0.35), u(-0.20, -0.10), u(0.13, 0.17) + 0.01 * female
        self.brow_y, self.brow_thick = u(-0.44, -0.38) - 0.03 * female, u(0.035, 0.055) + (0.0 if female else 0.03)
        self.nose_y, self.nose_w = u(0.18, 0.27), u(0.09, 0.15)
        self.mouth_y, self.mouth_w, self.lip = u(0.48, 0.56), u(0.22, 0.30), u(0.035, 0.06) + 0.015 * female
        tone = u(0.25, 1.0)
        self.skin = np.array([96, 60, 42]) * (1 - tone) + np.array([244, 208, 180]) * tone + u(-12, 12, 3)
        hair = np.array([[28, 22, 20], [80, 50, 28], [150, 110, 60], [200, 170, 110], [130, 130, 132], [120, 50, 30]])
        self.hair = hair[rng.integers(len(hair))] * u(0.7, 1.2)
        self.scale = size * u(0.34, 0.41)
        self.centre = np.array([size / 2, size * 0.52]) + u(-0.04, 0.04, 2) * size
        self.turn = _rotation(*np.radians(self.angles))

    def _sides(self) -> tuple[_Side, _Side]:
        name = EMOTIONS[self.emotion]
        self.intensity = self.rng.uniform(0.5, 1.0)
        lopsided = self.rng.uniform(-0.15, 0.15)
        common = {unit: full * self.intensity * self.rng.uniform(0.7, 1.2) for unit, full in ACTION_UNITS[name].items()}
        for unit in (1, 2, 4, 5, 7, 12, 15, 24):  # nobody's face is wholly still
            common[unit] = common.get(unit, 0.0) + self.rng.normal(0.0, 0.06)
        common[26] = max(0.0, common.get(26, 0.0) + self.rng.choice([0.0, 0.12]))
        left = {unit: value * (1 + lopsided) for unit, value in common.items()}
        right = {unit: value * (1 - lopsided) for unit, value in common.items()}
        if name == "contempt":
            (left if self.rng.random() < 0.5 else right)[12] = self.rng.normal(0.0, 0.06)
        return _Side(-1, left), _Side(1, right)

    # Geometry -------------------------------------------------------------------------------------------------

    def place(self, points: Array, lift: float = 0.0) -> NDArray[np.int32]:
        """Face units [n, 2] → pixels with SHIFT fractional bits; `lift` is the height above the ellipsoid."""
        x, y = points[:, 0], points[:, 1]
        depth = np.sqrt(np.clip(1 - (x / 0.95) ** 2 - (y / 1.25) ** 2, 0.0, 1.0)) * 0.75 + lift
        turned = np.stack([x, y, depth], axis=1) @ self.turn.T
        pixels = self.centre + turned[:, :2] * self.scale
        return np.round(pixels * (1 << SHIFT)).astype(np.int32)

    def fill(self, points: Array, colour: Any, lift: float = 0.0) -> None:
        cv2.fillPoly(self.canvas, [self.place(points, lift)], _plain(colour), cv2.LINE_AA, SHIFT)

    def line(self, points: Array, colour: Any, thickness: float, lift: float = 0.0) -> None:
        width = max(1, round(thickness * self.scale))
        cv2.polylines(self.canvas, [self.place(points, lift)], False, _plain(colour), width, cv2.LINE_AA, SHIFT)

    def stroke(self, points: Array, colour: Any, thickness: float) -> None:
        """A line of any width, thinner than a pixel too: a polygon, so that anti-aliasing thins it."""
        half = np.array([0.0, thickness / 2])
        self.fill(np.concatenate([points - half, (points + half)[::-1]]), colour)

    # Drawing --------------------------------------------------------------------------------------------------

    def draw(self) -> NDArray[np.uint8]:
        self.canvas = self._background()
        self._head()
        for side in (self.left, self.right):
            self._eye(side)
            self._brow(side)
        self._nose()
        self._mouth()
        self._hair_front()
        self._occlusion()
        return self._light()

    def _background(self) -> NDArray[np.uint8]:
        shade = self.rng.integers(20, 236, (3, 3, 1))
        rough = np.clip(shade + self.rng.integers(-40, 41, (3, 3, 3)), 0, 255).astype(np.uint8)
        return cv2.resize(rough, (self.size, self.size), interpolation=cv2.INTER_CUBIC)

    def _outline(self, grow: float = 1.0) -> Array:
        angle = np.linspace(0, 2 * math.pi, 28, endpoint=False)
        x, y = np.cos(angle), np.sin(angle)
        narrow = np.where(y > 0, 1 - (1 - self.jaw) * y**2 * 0.9, 1.0)
        jaw = 0.10 * max(0.0, self.left[26] + self.right[26]) / 2
        return np.stack([x * self.width * narrow, y * (1.0 + jaw * (y > 0))], axis=1) * grow

    def _head(self) -> None:
        long_hair = self.rng.random() < (0.75 if self.gender == 1 else 0.15)
        neck = np.array([[-0.30, 0.6], [0.30, 0.6], [0.36, 1.6], [-0.36, 1.6]])
        if long_hair:
            self.fill(
                np.array([[-0.86, -0.5], [-0.5, -1.1], [0.5, -1.1], [0.86, -0.5], [0.9, 1.1], [-0.9, 1.1]]),
                self.hair * 0.8,
                -0.3,
            )
        self.fill(neck, self.skin * 0.75, -0.3)
        shirt = np.array([[-1.3, 1.35], [1.3, 1.35], [1.5, 2.2], [-1.5, 2.2]])
        self.fill(shirt, self.rng.uniform(20, 230, 3), -0.3)
        self.fill(self._outline(1.06) * [1.02, 1.0] - [0.0, 0.06], self.hair, -0.15)
        self.fill(self._outline(), self.skin)
        for sign in (-1, 1):  # soft shade below the cheeks, or a blush on them
            self.fill(_ellipse(sign * 0.36, 0.25, 0.16, 0.12), self.skin * [0.97, 0.90, 0.88])

    def _eye(self, side: _Side) -> None:
        x = side.sign * self.eye_x
        open_ = 0.075 * (1.0 + 0.85 * side[5] - 0.55 * side[7] - 0.40 * side[6])
        open_ = max(open_, 0.012)
        y = self.eye_y
        angle = np.linspace(0, 2 * math.pi, 14, endpoint=False)
        height = open_ * np.where(np.sin(angle) < 0, 1.1, 0.8)
        rim = np.stack([x + self.eye_w * np.cos(angle), y + height * np.sin(angle)], axis=1)
        self.fill(rim, (238, 236, 232))
        gaze = 0.03 * math.sin(self.angles[0] / 20)
        iris = min(0.075, open_ * 1.15)
        self.fill(_ellipse(x + gaze, y, 0.072, iris), self.hair * 0.4 + 20)
        upper = rim[7:][np.argsort(rim[7:, 0])]
        self.stroke(upper, self.skin * 0.35, 0.035)
        if side[6] > 0.25:  # raised cheeks fold the skin below the eye
            self.stroke(_arc(x, y + open_ + 0.06, self.eye_w * 0.9, 0.03), self.skin * 0.72, 0.025)

    def _brow(self, side: _Side) -> None:
        s = side.sign
        inner = np.array(
            [s * (self.eye_x - 0.17 - 0.05 * side[4]), self.brow_y - 0.15 * side[1] + 0.13 * side[4] + 0.04 * side[9]]
        )
        middle = np.array([s * self.eye_x, self.brow_y - 0.045 - 0.08 * side[1] - 0.08 * side[2] + 0.06 * side[4]])
        outer = np.array([s * (self.eye_x + 0.20), self.brow_y + 0.03 - 0.15 * side[2] + 0.02 * side[4]])
        self.stroke(np.stack([inner, middle, outer]), self.hair * 0.6, self.brow_thick)
        if side[4] > 0.3:  # the furrow between the brows
            self.stroke(
                np.array([[s * 0.05, self.brow_y + 0.02], [s * 0.075, self.brow_y + 0.16]]), self.skin * 0.6, 0.02
            )

    def _nose(self) -> None:
        wrinkle = (self.left[9] + self.right[9]) / 2
        y, w = self.nose_y - 0.06 * wrinkle, self.nose_w * (1 + 0.3 * wrinkle)
        lift = 0.18
        self.fill(np.array([[-0.04, -0.1], [0.04, -0.1], [w, y], [0.0, y + 0.07], [-w, y]]), self.skin * 0.90, lift)
        for sign in (-1, 1):
            self.fill(_ellipse(sign * w * 0.55, y + 0.02, 0.035, 0.022), self.skin * 0.45, lift)
        if wrinkle > 0.2:
            for step in (0.0, 0.07):
                self.stroke(_arc(0.0, -0.06 + step, 0.10, -0.03), self.skin * 0.62, 0.025)

    def _mouth(self) -> None:
        left, right = self.left, self.right
        press = max(0.0, (left[24] + right[24]) / 2)
        open_ = 0.24 * max(0.0, (left[26] + right[26]) / 2) * (1 - 0.8 * press)
        raised = 0.07 * max(0.0, (left[10] + right[10]) / 2)

        def corner(side: _Side) -> Array:
            reach = self.mouth_w * (1 + 0.28 * side[12] + 0.30 * side[20] - 0.20 * side[26] - 0.10 * press)
            return np.array([side.sign * reach, self.mouth_y - 0.15 * side[12] + 0.12 * side[15] + 0.02 * side[20]])

        a, b = corner(left), corner(right)
        smile = (left[12] + right[12]) / 2
        top = np.array([0.0, self.mouth_y - raised - open_ * 0.35 + 0.03 * smile])
        low = np.array([0.0, self.mouth_y + open_ * 0.75 + 0.05 * smile])
        lip = self.lip * (1 - 0.65 * press)
        colour = self.skin * [0.80, 0.50, 0.52] if self.gender == 0 else self.skin * 0.4 + np.array([110, 25, 45])
        upper, lower = _curve(a, top, b), _curve(a, low, b)
        bow = np.sin(np.linspace(0, math.pi, len(upper)))[:, None] * [0.0, 1.0]
        self.fill(np.concatenate([upper - bow * lip, (lower + bow * lip * 1.3)[::-1]]), colour)
        if open_ + raised > 0.03:
            self.fill(np.concatenate([upper, lower[::-1]]), (62, 20, 24))
            if raised > 0.02 or smile > 0.3 or left[20] > 0.3:
                self.fill(np.concatenate([upper, (upper + bow * min(open_ + raised, 0.07))[::-1]]), (240, 238, 230))
        else:
            self.stroke((upper + lower) / 2, self.skin * 0.35, 0.03)
        for side, end in ((left, a), (right, b)):
            if side[12] > 0.3 or side[9] > 0.3:  # the fold from nose to mouth
                start = np.array([side.sign * self.nose_w * 1.2, self.nose_y])
                out = np.array([side.sign * 0.07, 0.0])
                self.stroke(
                    _curve(start, (start + end) / 2 + out, end + np.array([side.sign * 0.05, 0.0])),
                    self.skin * 0.74,
                    0.025,
                )

    def _hair_front(self) -> None:
        style = self.rng.integers(4)
        if style == 0:  # bald, or nearly so
            return
        low = self.rng.uniform(-0.72, -0.56)
        part = self.rng.uniform(-0.4, 0.4)
        x = np.linspace(-self.width * 1.04, self.width * 1.04, 9)
        crown = -1.10 * np.sqrt(np.clip(1 - (x / (self.width * 1.08)) ** 2, 0.02, 1.0))
        parted = 0.18 * np.cos(np.clip((x - part) * 3, -1.5, 1.5)) * (style != 2)
        fringe = low - parted + 0.25 * (np.abs(x) / self.width) ** 4
        self.fill(np.concatenate([np.stack([x, crown], 1), np.stack([x, fringe], 1)[::-1]]), self.hair)

    def _occlusion(self) -> None:
        kind = self.rng.random()
        if kind < 0.14:  # glasses
            for sign in (-1, 1):
                ring = _ellipse(sign * self.eye_x, self.eye_y + 0.02, 0.22, 0.17)
                self.line(np.concatenate([ring, ring[:1]]), (30, 30, 34), 0.02, 0.05)
            bridge = np.array([[-0.10, self.eye_y], [0.10, self.eye_y]])
            self.line(bridge, (30, 30, 34), 0.02, 0.15)
        elif kind < 0.20:  # something in front: a hand, a cup, a finger on the lens
            x, y = self.rng.uniform(-0.8, 0.8), self.rng.uniform(-0.6, 1.0)
            self.fill(
                _ellipse(x, y, self.rng.uniform(0.12, 0.28), self.rng.uniform(0.12, 0.28)),
                self.rng.uniform(20, 230, 3),
                0.3,
            )
        elif kind < 0.26 and self.gender == 0:  # a beard
            angle = np.linspace(0.25, math.pi - 0.25, 12)
            rim = np.stack([np.cos(angle) * self.width * self.jaw, np.sin(angle)], axis=1)
            inner = np.stack([np.cos(angle) * self.width * 0.6, self.mouth_y + 0.12 + 0.15 * np.sin(angle)], axis=1)
            self.fill(np.concatenate([rim, inner[::-1]]), self.hair * 0.8)

    def _light(self) -> NDArray[np.uint8]:
        """Light from one side, the camera's exposure and noise."""
        rng = self.rng
        angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0.0, 0.45)
        ramp = np.linspace(-1, 1, self.size, dtype=np.float32)
        light = 1 + strength * (math.cos(angle) * ramp[None, :] + math.sin(angle) * ramp[:, None]) / 1.4
        image = self.canvas.astype(np.float32) * (light * rng.uniform(0.75, 1.15))[..., None]
        image += rng.normal(0, rng.uniform(1.0, 7.0), image.shape).astype(np.float32)
        return np.clip(image, 0, 255).astype(np.uint8)


def _rotation(yaw: float, pitch: float, roll: float) -> Array:
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    around_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return around_z @ around_x @ around_y


_ANGLES = np.linspace(0, 2 * math.pi, 14, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_STEPS = np.linspace(0, 1, 9)[:, None]


def _ellipse(x: float, y: float, width: float, height: float) -> Array:
    return _CIRCLE * [width, height] + [x, y]


def _arc(x: float, y: float, width: float, sag: float) -> Array:
    return _curve(np.array([x - width, y]), np.array([x, y + sag]), np.array([x + width, y]))


def _curve(start: Array, middle: Array, end: Array) -> Array:
    """Nine points of the parabola through three."""
    pull = 2 * middle - (start + end) / 2
    return (1 - _STEPS) ** 2 * start + 2 * _STEPS * (1 - _STEPS) * pull + _STEPS**2 * end


def _plain(colour: Any) -> Colour:
    r, g, b = (float(min(max(c, 0.0), 255.0)) for c in colour)
    return r, g, b
