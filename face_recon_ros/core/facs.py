"""From the 52 ARKit expression units to the action units of FACS.

Ekman, Friesen and Hager 2002, "Facial Action Coding System"; which ARKit unit shows which action
unit follows M. Ozel's "ARKit to FACS" cheat sheet. Codes are those of hri_msgs/FacialActionUnits.

What ARKit's units do not cover stays at intensity 0 with confidence 0: AU 11, 13, 21, 23,
27 (26 goes on to 1), 32 to 50 but 34, 43, 45 and 46, head movements, visibility, gross behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_ACTION_UNITS = 99

_Unit = Callable[[Mapping[str, float]], float]


def _strongest(*names: str) -> _Unit:
    return lambda e: max(e[name] for name in names)


def _both_sides(stem: str) -> _Unit:
    """An action unit counts as shown where one side shows it."""
    return _strongest(f"{stem}Left", f"{stem}Right")


def _mean(*names: str) -> _Unit:
    return lambda e: sum(e[name] for name in names) / len(names)


def _weakest(*names: str) -> _Unit:
    return lambda e: min(e[name] for name in names)


def _wink(e: Mapping[str, float]) -> float:
    return abs(e["eyeBlinkLeft"] - e["eyeBlinkRight"])


def _lips_part(e: Mapping[str, float]) -> float:
    lips = _strongest(
        "mouthUpperUpLeft", "mouthUpperUpRight", "mouthLowerDownLeft", "mouthLowerDownRight"
    )
    return max(e["jawOpen"] - e["mouthClose"], lips(e))


#: Action unit -> its intensity in [0, 1] from activations by name.
ACTION_UNITS: dict[int, _Unit] = {
    1: _strongest("browInnerUp"),  # inner brow raiser
    2: _both_sides("browOuterUp"),  # outer brow raiser
    4: _both_sides("browDown"),  # brow lowerer
    5: _both_sides("eyeWide"),  # upper lid raiser
    6: _both_sides("cheekSquint"),  # cheek raiser
    7: _both_sides("eyeSquint"),  # lid tightener
    8: _strongest("mouthClose"),  # lips toward each other
    9: _both_sides("noseSneer"),  # nose wrinkler
    10: _both_sides("mouthUpperUp"),  # upper lip raiser
    12: _both_sides("mouthSmile"),  # lip corner puller
    14: _both_sides("mouthDimple"),  # dimpler
    15: _both_sides("mouthFrown"),  # lip corner depressor
    16: _both_sides("mouthLowerDown"),  # lower lip depressor
    17: _strongest("mouthShrugLower", "mouthShrugUpper"),  # chin raiser
    18: _strongest("mouthPucker"),  # lip pucker
    19: _strongest("tongueOut"),  # tongue show
    20: _both_sides("mouthStretch"),  # lip stretcher
    22: _strongest("mouthFunnel"),  # lip funneler
    24: _both_sides("mouthPress"),  # lip pressor
    25: _lips_part,  # lips part
    26: _strongest("jawOpen"),  # jaw drop
    28: _strongest("mouthRollLower", "mouthRollUpper"),  # lip suck
    29: _strongest("jawForward"),  # jaw thrust
    30: _strongest("jawLeft", "jawRight"),  # jaw sideways
    34: _strongest("cheekPuff"),  # cheek puff
    43: _weakest("eyeBlinkLeft", "eyeBlinkRight"),  # eyes closed
    45: _weakest("eyeBlinkLeft", "eyeBlinkRight"),  # blink: one image does not distinguish 43
    46: _wink,
    61: _mean("eyeLookOutLeft", "eyeLookInRight"),  # eyes turn left (the person's)
    62: _mean("eyeLookInLeft", "eyeLookOutRight"),  # eyes turn right
    63: _mean("eyeLookUpLeft", "eyeLookUpRight"),  # eyes up
    64: _mean("eyeLookDownLeft", "eyeLookDownRight"),  # eyes down
    65: _weakest("eyeLookOutLeft", "eyeLookOutRight"),  # walleye
    66: _weakest("eyeLookInLeft", "eyeLookInRight"),  # cross-eye
}


def action_units(
    names: Sequence[str], activations: ArrayLike, confidence: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Intensities and confidences of all 99 codes.

    Args:
        names: of the K_exp activations; a model without the ARKit names shows no action unit.
        activations: (K_exp,) in [0, 1].
        confidence: in the activations, in [0, 1].

    Returns:
        (99,) intensity in [0, 1] and (99,) confidence in [0, 1], both by code; 0 for what this
        face model does not cover.
    """
    values = np.clip(np.asarray(activations, np.float64), 0.0, 1.0)
    by_name = dict(zip(names, values.tolist(), strict=True))
    intensity, sure = np.zeros(N_ACTION_UNITS, np.float32), np.zeros(N_ACTION_UNITS, np.float32)
    for code, unit in ACTION_UNITS.items():
        try:
            intensity[code] = min(max(unit(by_name), 0.0), 1.0)
        except KeyError:
            continue
        sure[code] = confidence
    return intensity, sure
