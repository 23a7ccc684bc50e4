"""Random expressions: activations are drawn as they occur together, not one by one.

Names are ARKit's 52. The mixture is set by hand from what photographs of people show: mostly
near rest, many
smiles, talking mouths, blinks, and now and then something strong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STRONG = 0.14  # share of strong expressions among people's
#: Of all others: at rest, smiling, talking.
_OTHERS = np.array([0.26, 0.4, 0.2]) / 0.86
#: One jaw, one mouth: their Left and Right are two ways of one motion, not two sides of a face.
_ONE_OF_A_KIND = ("jaw", "mouth")
#: What moves against each other: only the difference is seen.
_OPPOSED = [(f"{part}Left", f"{part}Right") for part in _ONE_OF_A_KIND]
_OPPOSED += [
    (f"eyeLook{one}{side}", f"eyeLook{other}{side}")
    for one, other in (("Up", "Down"), ("In", "Out"))
    for side in ("Left", "Right")
]


def sample_expression(
    names: Sequence[str], prior: str, random: np.random.Generator, *, strong: float = STRONG
) -> NDArray[np.float32]:
    """One expression.

    Args:
        names: of the face model's K_exp expressions.
        prior: the model's `expression_prior`; anything but `unit_interval` is drawn standard
            normal.
        random: source of randomness.
        strong: share of strong expressions, of any muscles together.

    Returns:
        (K_exp,) activations.
    """
    if prior != "unit_interval":
        return random.standard_normal(len(names)).astype(np.float32) * random.uniform(0, 1)
    e: dict[str, float] = {}

    def add(name: str, value: float, *, both: bool = False, skew: float = 0.12) -> None:
        if not both:
            e[name] = e.get(name, 0.0) + value
            return
        for side in ("Left", "Right"):
            e[name + side] = e.get(name + side, 0.0) + value * (
                1 + skew * random.standard_normal()
            )

    def u(low: float, high: float) -> float:
        return float(random.uniform(low, high))

    _add_mood(names, random, add, u, strong)
    for name in names:  # muscle noise
        if random.random() < 0.25:
            add(name, abs(random.normal(0, 0.08)))
    if random.random() < 0.4:
        brows = random.choice(["up", "down", "worry"])
        b = u(0, 0.9)
        if brows == "up":
            add("browInnerUp", b)
            add("browOuterUp", b, both=True)
        elif brows == "down":
            add("browDown", b, both=True)
        else:
            add("browInnerUp", b)
            add("browDown", 0.4 * b, both=True)
    if random.random() < 0.12:
        add("mouthFrown", u(0, 0.6), both=True)
    # the face model's eyes are open wider than those of people before a camera
    blink = u(0.7, 1.0) if random.random() < 0.07 else abs(random.normal(0.15, 0.12))
    add("eyeBlink", blink, both=True, skew=0.05)
    if random.random() < 0.15:
        add("eyeWide", u(0, 0.7), both=True)
    # the face model's pupils sit a millimetre nearer to the upper lid than people's
    gaze_left, gaze_up = random.normal([0, -0.15], [0.35, 0.22])
    add("eyeLookOutLeft", max(gaze_left, 0.0))
    add("eyeLookInRight", max(gaze_left, 0.0))
    add("eyeLookInLeft", max(-gaze_left, 0.0))
    add("eyeLookOutRight", max(-gaze_left, 0.0))
    add("eyeLookUp", max(gaze_up, 0.0), both=True, skew=0.0)
    add("eyeLookDown", max(-gaze_up, 0.0), both=True, skew=0.0)
    for one, other in _OPPOSED:
        common = min(e.get(one, 0.0), e.get(other, 0.0))
        add(one, -common)
        add(other, -common)
    # it closes the lips of an open jaw; without one they would go through each other
    e["mouthClose"] = min(e.get("mouthClose", 0.0), e.get("jawOpen", 0.0))
    return np.clip(np.array([e.get(name, 0.0) for name in names]), 0.0, 1.0).astype(np.float32)


def _add_mood(
    names: Sequence[str],
    random: np.random.Generator,
    add: Callable[..., None],
    u: Callable[[float, float], float],
    strong: float,
) -> None:
    """Smiles, talks, grimaces, or rests.

    Args:
        names: of the face model's expressions.
        random: source of randomness.
        add: name, value and `both` sides.
        u: uniform between two numbers.
        strong: share of grimaces.
    """
    shares = [*(1 - strong) * _OTHERS, strong]
    mood = random.choice(["rest", "smile", "talk", "strong"], p=shares)
    if mood == "smile":
        s = u(0.2, 1.0)
        add("mouthSmile", s, both=True)
        add("cheekSquint", s * u(0, 0.9), both=True)
        add("eyeSquint", s * u(0, 0.6), both=True)
        add("mouthDimple", s * u(0, 0.6), both=True)
        add("mouthStretch", s * u(0, 0.6), both=True)
        if random.random() < 0.65:  # with teeth
            add("mouthUpperUp", s * u(0.2, 1.0), both=True)
            add("mouthLowerDown", s * u(0, 0.8), both=True)
            add("jawOpen", s * u(0, 0.35) * (random.random() < 0.5))  # or with the teeth closed
    elif mood == "talk":
        o = u(0, 1) ** 2
        add("jawOpen", 0.75 * o)
        add("mouthClose", 0.6 * o * (random.random() < 0.15))
        shape = random.choice(["wide", "round", "press", "plain"])
        if shape == "wide":
            add("mouthStretch", u(0, 0.7), both=True)
            add("mouthLowerDown", u(0, 0.7), both=True)
        elif shape == "round":
            add("mouthFunnel", u(0, 0.8))
            add("mouthPucker", u(0, 0.8))
        elif shape == "press":
            add("mouthPress", u(0, 0.8), both=True)
            add("mouthRollLower", u(0, 0.6))
            add("mouthRollUpper", u(0, 0.6))
        add("mouthUpperUp", u(0, 0.3), both=True)
    elif mood == "strong":
        for name in random.choice(names, 5, replace=False):
            pair = name.removesuffix("Left").removesuffix("Right")
            if pair not in (name, *_ONE_OF_A_KIND) and random.random() < 0.7:
                add(pair, u(0, 0.9), both=True)
            else:
                add(str(name), u(0, 0.9))
        if random.random() < 0.3:
            add("jawOpen", u(0.4, 1.0))


class Mood(NamedTuple):
    """How much a face does what folds its skin, each from 0 to 1.

    Attributes:
        smile: folds from nose to mouth.
        raised: brows pulled up, which crease the forehead.
        frown: brows pulled together.
    """

    smile: float = 0.0
    raised: float = 0.0
    frown: float = 0.0


def mood_of(expression: NDArray[np.floating], names: Sequence[str]) -> Mood:
    """What a (K_exp,) expression does; nothing for models that do not name it."""

    def mean(*prefixes: str) -> float:
        chosen = [i for i, name in enumerate(names) if name.startswith(prefixes)]
        return float(np.clip(expression[chosen], 0, 1).mean()) if chosen else 0.0

    return Mood(
        mean("mouthSmile"), max(mean("browInnerUp"), mean("browOuterUp")), mean("browDown")
    )
