"""Built-in clips, made by formulas with natural timing: talk, expressions, blink, gaze, turn.

Each clip is written in ARKit's coefficients and neck angles, so that any head can play it; it starts and ends at rest,
so that it loops. Timings follow what is measured of people: a blink closes in about 0.1 s and opens in 0.2 s, every 2
to 6 s; an eye jumps 20 ms plus 2.2 ms per degree and then rests 0.3 to 1.5 s; a turning head moves along minimum-jerk
curves while the eyes arrive first and hold their target; speech runs at four to five syllables a second, neighbouring
sounds blending into each other; an expression comes in 0.4 s and goes more slowly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from next3d.errors import InputError
from next3d.heads.arkit import ARKIT_NAMES, LOOK_DOWN, LOOK_SIDE, LOOK_UP
from next3d.heads.head_model import HeadModel
from next3d.heads.params import Motion

DEGREE = math.pi / 180
EYES_REACH = 18 * DEGREE  # what lies further to the side is met by turning the head


class Score:
    """A clip in the making: ARKit coefficients, neck and gaze over time.

    Attributes:
        time: (T,) seconds
        coefficients: (T, 52), ARKit's
        neck: (T, 3) axis-angle in radians
        gaze: (T, 2) where the eyes look, seen from the trunk: yaw (+ to the subject's left), pitch (+ down), radians
        random: the source of all variation
    """

    def __init__(self, seconds: float, fps: float, seed: int) -> None:
        count = max(2, round(seconds * fps))
        self.seconds = count / fps
        self.time = np.arange(count) / fps
        self.coefficients = np.zeros((count, 52))
        self.neck = np.zeros((count, 3))
        self.gaze = np.zeros((count, 2))
        self.neck_goal = np.zeros(3)
        self.random = np.random.default_rng(seed)

    def add(self, name: str, curve: np.ndarray, amount: float = 1.0) -> None:
        """Add ``amount`` × ``curve`` to a coefficient, or to both sides of one named without Left or Right."""
        for full in (name, f"{name}Left", f"{name}Right"):
            if full in ARKIT_NAMES:
                self.coefficients[:, ARKIT_NAMES.index(full)] += amount * curve

    def pulse(self, start: float, rise: float, hold: float, fall: float) -> np.ndarray:
        """0 → 1 → 0: rises from ``start`` in ``rise`` seconds, holds, falls."""
        end = start + rise + hold
        return minimum_jerk((self.time - start) / rise) - minimum_jerk((self.time - end) / fall)

    def drift(self, amplitude: float, slowest: float = 0.1, fastest: float = 0.6) -> np.ndarray:
        """Slow wandering of the given standard deviation, zero at both ends of the clip."""
        frequencies = np.geomspace(slowest, fastest, 5) * self.random.uniform(0.85, 1.15, 5)
        phases = self.random.uniform(0, 2 * math.pi, 5)
        waves = np.sin(2 * math.pi * frequencies * self.time[:, None] + phases) / np.sqrt(np.arange(1, 6))
        return amplitude * waves.sum(1) / math.sqrt(0.5 * (1 / np.arange(1, 6)).sum()) * self.window()

    def window(self, fade: float = 0.5) -> np.ndarray:
        """1, fading to 0 at both ends of the clip."""
        fade = min(fade, self.seconds / 3)
        return minimum_jerk(self.time / fade) * minimum_jerk((self.time[-1] - self.time) / fade)

    def blink(self, start: float, depth: float = 1.0) -> None:
        """Both lids close in about 0.1 s and open in 0.2 s; brows and cheeks take a small part."""
        speed = self.random.uniform(0.9, 1.15)
        curve = depth * self.pulse(start, 0.10 * speed, 0.03, 0.21 * speed)
        self.add("eyeBlink", curve)
        self.add("browDown", curve, 0.06)
        self.add("cheekSquint", curve, 0.08)

    def blinks(self, mean_interval: float = 3.4) -> None:
        """Blinks at irregular times, now and then a double or a half one."""
        start = self.random.uniform(0.6, 1.6)
        while start < self.seconds - 0.5:
            self.blink(start, self.random.choice([1.0, 1.0, 1.0, 0.7]))
            if self.random.random() < 0.12 and start < self.seconds - 0.9:
                self.blink(start + 0.4)
            start += max(0.9, self.random.gamma(4.0, mean_interval / 4.0))

    def look(self, start: float, yaw: float, pitch: float, head_share: float = 0.6) -> None:
        """Look at a place (radians) from ``start`` on: the eyes jump, the head follows where the place lies far out."""
        before = self.gaze[-1].copy()
        step = np.array([yaw, pitch]) - before
        jump = 0.02 + 0.0022 * np.hypot(*step) / DEGREE
        self.gaze += minimum_jerk((self.time - start) / jump)[:, None] * step
        target = np.array([yaw, pitch])
        beyond = np.sign(target) * np.maximum(np.abs(target) * head_share, np.abs(target) - EYES_REACH)
        head = beyond if np.abs(target).max() > 8 * DEGREE else 0.25 * target
        turn = np.array([head[1], head[0], 0.12 * head[0]]) - self.neck_goal
        duration = 0.35 + 0.45 * np.hypot(*turn[:2]) / (40 * DEGREE)
        self.neck += minimum_jerk((self.time - start - 0.05) / duration)[:, None] * turn
        self.neck_goal = self.neck_goal + turn

    def fixate(self, spread: float = 3 * DEGREE, start: float = 0.4, end: float | None = None) -> None:
        """Small jumps of the eyes around where they look, with rests between."""
        end = self.seconds - 0.4 if end is None else end
        offset = np.zeros(2)
        while start < end:
            goal = self.random.normal(0, spread, 2) * (1.0, 0.6)
            self.gaze += minimum_jerk((self.time - start) / 0.035)[:, None] * (goal - offset)
            offset = goal
            start += self.random.uniform(0.3, 1.5)
        self.gaze -= minimum_jerk((self.time - end) / 0.035)[:, None] * offset

    def motion(self, head: HeadModel, fps: float) -> Motion:
        """The clip as head parameters: the eyes make up for the turn of the head, the lids follow the eyes."""
        yaw, pitch = self.gaze[:, 0] - self.neck[:, 1], self.gaze[:, 1] - self.neck[:, 0]
        left, right = np.clip(yaw / LOOK_SIDE, 0, 1), np.clip(-yaw / LOOK_SIDE, 0, 1)
        for name, curve in (
            ("eyeLookOutLeft", left),
            ("eyeLookInRight", left),
            ("eyeLookInLeft", right),
            ("eyeLookOutRight", right),
            ("eyeLookDown", np.clip(pitch / LOOK_DOWN, 0, 1)),
            ("eyeLookUp", np.clip(-pitch / LOOK_UP, 0, 1)),
        ):
            self.add(name, curve)
        # Lids that did not follow would leave white above an eye that looks down, and cover one that looks up.
        self.add("eyeBlink", np.clip(pitch / LOOK_DOWN, 0, 1), 0.35)
        self.add("eyeWide", np.clip(-pitch / LOOK_UP, 0, 1), 0.4)
        params = head.from_arkit(self.coefficients.clip(0, 1)).replace(neck=torch.from_numpy(self.neck).float())
        return Motion(params, fps)


def minimum_jerk(phase: np.ndarray) -> np.ndarray:
    """0 → 1 over phase 0 → 1 with velocity and acceleration zero at both ends: how limbs and heads move."""
    phase = np.clip(phase, 0, 1)
    return phase**3 * (10 - 15 * phase + 6 * phase**2)


# Mouth shapes of speech sounds, in ARKit's coefficients, with how strongly a sound insists on its shape (lips that must
# close insist; an 'h' takes the shape of its neighbours) and its usual length in seconds.
SOUNDS: dict[str, tuple[dict[str, float], float, float]] = {
    "aa": ({"jawOpen": 0.52, "mouthLowerDown": 0.22, "mouthUpperUp": 0.10}, 1.0, 0.15),
    "ae": ({"jawOpen": 0.40, "mouthStretch": 0.25, "mouthUpperUp": 0.18, "mouthLowerDown": 0.22}, 1.0, 0.14),
    "ee": ({"jawOpen": 0.14, "mouthSmile": 0.30, "mouthStretch": 0.28, "mouthLowerDown": 0.18}, 1.0, 0.13),
    "eh": ({"jawOpen": 0.26, "mouthStretch": 0.15, "mouthLowerDown": 0.20}, 0.9, 0.11),
    "oh": ({"jawOpen": 0.32, "mouthFunnel": 0.55, "mouthPucker": 0.15}, 1.1, 0.15),
    "oo": ({"jawOpen": 0.12, "mouthPucker": 0.62, "mouthFunnel": 0.25}, 1.1, 0.14),
    "uh": ({"jawOpen": 0.24, "mouthLowerDown": 0.12}, 0.6, 0.09),
    "m": ({"mouthClose": 0.03, "mouthPress": 0.30, "mouthRollLower": 0.18, "mouthRollUpper": 0.14}, 1.6, 0.09),
    "f": ({"jawOpen": 0.06, "mouthRollLower": 0.45, "mouthUpperUp": 0.22}, 1.4, 0.10),
    "l": ({"jawOpen": 0.20, "mouthUpperUp": 0.10, "mouthLowerDown": 0.12}, 0.7, 0.08),
    "s": ({"jawOpen": 0.06, "mouthStretch": 0.20, "mouthLowerDown": 0.25, "mouthUpperUp": 0.12}, 1.1, 0.10),
    "sh": ({"jawOpen": 0.08, "mouthFunnel": 0.50, "mouthPucker": 0.15, "mouthLowerDown": 0.15}, 1.1, 0.11),
    "r": ({"jawOpen": 0.13, "mouthPucker": 0.30, "mouthFunnel": 0.15}, 0.8, 0.08),
    "t": ({"jawOpen": 0.09, "mouthLowerDown": 0.16}, 0.8, 0.07),
}
VOWELS = ("aa", "ae", "ee", "eh", "oh", "oo", "uh")
CONSONANTS = ("m", "f", "l", "s", "sh", "r", "t")


def talk(score: Score) -> None:
    """Phrases of syllables with pauses: lips and jaw articulate, head and brows stress, eyes blink at the pauses."""
    random, time = score.random, score.time
    sounds: list[tuple[str, float, float]] = []  # sound, centre, length
    stresses: list[float] = []
    speaking = np.zeros_like(time)
    start = 0.35
    while start < score.seconds - 0.9:
        phrase_start = start
        for syllable in range(random.integers(4, 10)):
            stressed = syllable % random.integers(2, 4) == 0
            for sound in (random.choice(CONSONANTS, p=(0.2, 0.1, 0.14, 0.16, 0.08, 0.12, 0.2)), random.choice(VOWELS)):
                length = SOUNDS[sound][2] * random.uniform(0.85, 1.2) * (1.25 if stressed else 0.95)
                sounds.append((sound, start + length / 2, length))
                start += length
            if stressed:
                stresses.append(start - 0.1)
            if start > score.seconds - 0.7:
                break
        speaking += score.pulse(phrase_start - 0.08, 0.14, max(start - phrase_start - 0.1, 0.05), 0.2)
        if random.random() < 0.75:
            score.blink(start + random.uniform(-0.1, 0.15))
        start += random.uniform(0.3, 0.75)
    blend(score, sounds, speaking)
    for when in stresses:
        strength = random.uniform(0.4, 1.0)
        score.neck[:, 0] += 2.2 * DEGREE * strength * score.pulse(when - 0.12, 0.16, 0.0, 0.3)
        if random.random() < 0.45:
            score.add("browInnerUp", score.pulse(when - 0.1, 0.16, 0.08, 0.4), 0.30 * strength)
            score.add("browOuterUp", score.pulse(when - 0.1, 0.16, 0.08, 0.4), 0.25 * strength)
    score.add("mouthSmile", score.window(), 0.08)
    for axis, amount in enumerate((0.9, 2.2, 1.2)):
        score.neck[:, axis] += score.drift(amount * DEGREE)
    score.fixate(2 * DEGREE)


def blend(score: Score, sounds: list[tuple[str, float, float]], speaking: np.ndarray) -> None:
    """Coarticulation: at each moment the shapes of the sounds around it, weighted by nearness and insistence.

    The idea is Cohen and Massaro's dominance functions (1993).
    """
    total = np.full_like(score.time, 1e-3)
    shapes = {name: np.zeros_like(score.time) for name in sorted({n for shape, _, _ in SOUNDS.values() for n in shape})}
    for sound, centre, length in sounds:
        shape, insistence, _ = SOUNDS[sound]
        dominance = insistence**2 * np.exp(-(np.abs((score.time - centre) / (0.55 * length)) ** 1.6))
        total += dominance
        volume = score.random.uniform(0.8, 1.1)
        for name, amount in shape.items():
            shapes[name] += dominance * amount * volume
    for name, curve in shapes.items():
        score.add(name, curve / total * np.clip(speaking, 0, 1))


# name: coefficients, the neck in degrees, seconds held. Asymmetries are deliberate: no real face is even.
EXPRESSIONS: list[tuple[str, dict[str, float], tuple[float, float, float], float]] = [
    (
        "joy",
        {
            "mouthSmileLeft": 0.95,
            "mouthSmileRight": 0.88,
            "cheekSquint": 0.7,
            "eyeSquint": 0.45,
            "jawOpen": 0.16,
            "mouthUpperUp": 0.3,
            "mouthDimple": 0.2,
        },
        (-2, 4, 3),
        1.0,
    ),
    (
        "surprise",
        {"browInnerUp": 0.95, "browOuterUp": 0.9, "eyeWide": 0.85, "jawOpen": 0.55, "mouthFunnel": 0.2},
        (-5, 0, 0),
        0.8,
    ),
    (
        "sadness",
        {"browInnerUp": 0.9, "mouthFrown": 0.8, "mouthShrugLower": 0.45, "eyeSquint": 0.25, "eyeLookDown": 0.4},
        (8, -3, -4),
        1.1,
    ),
    (
        "anger",
        {
            "browDownLeft": 0.95,
            "browDownRight": 1.0,
            "eyeSquint": 0.4,
            "noseSneer": 0.45,
            "mouthPress": 0.6,
            "mouthFrown": 0.3,
            "jawForward": 0.3,
        },
        (5, 0, 0),
        0.9,
    ),
    (
        "disgust",
        {
            "noseSneerLeft": 0.95,
            "noseSneerRight": 0.75,
            "mouthUpperUpLeft": 0.6,
            "mouthUpperUpRight": 0.35,
            "browDown": 0.5,
            "eyeSquint": 0.6,
            "mouthFrown": 0.35,
        },
        (-3, -8, 3),
        0.8,
    ),
    ("kiss", {"mouthPucker": 0.95, "mouthFunnel": 0.15, "eyeBlink": 0.25, "browInnerUp": 0.25}, (-3, 0, 4), 0.7),
    (
        "wink",
        {
            "eyeBlinkLeft": 1.0,
            "cheekSquintLeft": 0.75,
            "mouthSmileLeft": 0.7,
            "mouthSmileRight": 0.25,
            "browDownLeft": 0.3,
            "browOuterUpRight": 0.35,
        },
        (0, 5, -5),
        0.35,
    ),
]


def expressions(score: Score) -> None:
    """Joy, surprise, sadness, anger, disgust, a kiss and a wink, one after the other."""
    scale = (score.seconds - 0.8) / sum(hold + 1.15 for *_, hold in EXPRESSIONS)
    start = 0.4
    for name, shape, neck, hold in EXPRESSIONS:
        rise = {"surprise": 0.22, "wink": 0.2}.get(name, 0.42)
        curve = score.pulse(start, rise * scale, hold * scale, 0.6 * scale)
        for coefficient, amount in shape.items():
            score.add(coefficient, curve, amount)
        slow = score.pulse(start + 0.05, 1.3 * rise * scale, hold * scale, 0.65 * scale)
        score.neck += slow[:, None] * np.array(neck) * DEGREE
        if name not in ("wink", "surprise", "kiss"):
            score.blink(start + (rise + hold + 0.25) * scale)
        start += (hold + 1.15) * scale
    for axis, amount in enumerate((0.5, 0.9, 0.5)):
        score.neck[:, axis] += score.drift(amount * DEGREE)
    score.fixate(1.0 * DEGREE)


def blink(score: Score) -> None:
    """A quiet face that blinks, its eyes wandering a little."""
    score.blinks(2.6)
    score.fixate(1.6 * DEGREE)
    for axis, amount in enumerate((0.6, 1.0, 0.5)):
        score.neck[:, axis] += score.drift(amount * DEGREE, 0.08, 0.35)
    score.add("mouthSmile", 0.5 + score.drift(0.3), 0.08)


def gaze(score: Score) -> None:
    """Looks around: left, right, up, down and between, the head following where it must, blinking on large jumps."""
    places = [(-22, 0), (24, -3), (2, -16), (-8, 15), (16, 10), (-26, -8), (30, 4), (0, 0)]
    pause = (score.seconds - 1.0) / len(places)
    start, previous = 0.4, (0.0, 0.0)
    for yaw, pitch in places:
        score.look(start, yaw * DEGREE, pitch * DEGREE, head_share=0.35)
        if math.hypot(yaw - previous[0], pitch - previous[1]) > 30:
            score.blink(start - 0.04)
        start, previous = start + pause * score.random.uniform(0.85, 1.0), (yaw, pitch)
    score.fixate(1.2 * DEGREE)
    for axis, amount in enumerate((0.4, 0.5, 0.4)):
        score.neck[:, axis] += score.drift(amount * DEGREE)


def turn(score: Score) -> None:
    """The head turns to both sides, up, down and tilts; the eyes lead and stay level."""
    poses = [(0, 38, 3), (4, -38, -3), (-16, 0, 0), (17, 4, 0), (0, 0, 16), (0, 0, -16), (0, 0, 0)]
    pause = (score.seconds - 1.0) / len(poses)
    now = np.zeros(3)
    for index, pose in enumerate(poses):
        start = 0.3 + index * pause
        step = np.array(pose) * DEGREE - now
        duration = min(0.85 * pause, 0.4 + 0.6 * np.abs(step).max() / (60 * DEGREE))
        score.neck += minimum_jerk((score.time - start) / duration)[:, None] * step
        jump = 0.02 + 0.0022 * np.abs(step[:2]).max() / DEGREE
        score.gaze += minimum_jerk((score.time - start + 0.05) / jump)[:, None] * step[[1, 0]]
        if np.abs(step[:2]).max() > 20 * DEGREE:
            score.blink(start)
        now = now + step
    score.gaze += score.drift(0.6 * DEGREE)[:, None]


class Clip(NamedTuple):
    compose: Callable[[Score], None]
    seconds: float  # usual length
    about: str


CLIPS = {
    "talk": Clip(talk, 8.0, "speaks in phrases, nodding and blinking"),
    "expressions": Clip(expressions, 14.0, "joy, surprise, sadness, anger, disgust, a kiss and a wink"),
    "blink": Clip(blink, 6.0, "a quiet face that blinks"),
    "gaze": Clip(gaze, 9.0, "looks around, the head following"),
    "turn": Clip(turn, 9.0, "turns to both sides, looks up and down, tilts"),
}


def make_clip(name: str, head: HeadModel, *, seconds: float | None = None, fps: float = 25.0, seed: int = 0) -> Motion:
    """A built-in clip for ``head``; the same seed gives the same clip.

    Raises:
        InputError: no clip of that name, or a length or rate that is not positive.
    """
    if name not in CLIPS:
        raise InputError(f"there is no clip '{name}': choose {', '.join(CLIPS)}, or give a motion file (.npz)")
    clip = CLIPS[name]
    seconds = clip.seconds if seconds is None else seconds
    if not (math.isfinite(seconds) and seconds > 0 and math.isfinite(fps) and fps > 0):
        raise InputError(f"a clip needs a positive length and rate, got {seconds} s at {fps} frames per second")
    score = Score(seconds, fps, seed)
    clip.compose(score)
    return score.motion(head, fps)
