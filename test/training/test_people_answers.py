"""What a network's answers say of people: a known model is found again in what it answers."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from face_recon_ros.core.identity_posterior import IdentityAnswers
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.training.people_answers import (
    PersonPictures,
    identity_answers,
    look_at_people,
    neutral_answers,
)


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


def people(model, count, pictures=6, own=0.1, offset=0.2):
    """Answers with a response of 0.4, errors of the person and of the picture."""
    random = np.random.default_rng(0)
    out = []
    for _ in range(count):
        truth = random.standard_normal(model.k_identity)
        shared = random.normal(0, own, model.k_identity)
        answers = 0.4 * truth + shared + random.normal(0, 0.2, (pictures, model.k_identity))
        shown = random.uniform(0, 1, (pictures, model.k_expression))
        raised = np.zeros(model.k_expression)
        raised[model.expression_names.index("browInnerUp")] = random.normal(0, offset)
        seen = 0.3 + 0.2 * shown + raised + random.normal(0, 0.05, shown.shape)
        out.append(PersonPictures(*(v.astype(np.float32) for v in (truth, answers, shown, seen))))
    return out


def test_response_and_errors_are_found(model):
    found = identity_answers(people(model, 1500), model, np.zeros(model.k_identity))
    mean, response, person, picture = (np.array(v) for v in found.values())
    assert np.abs(mean).max() < 0.05
    np.testing.assert_allclose(np.diag(response), 0.4, atol=0.05)
    assert np.abs(response - np.diag(np.diag(response))).mean() < 0.01
    assert np.diag(person).mean() == pytest.approx(0.01, rel=0.15)
    assert np.diag(picture).mean() == pytest.approx(0.04, rel=0.05)


@pytest.mark.parametrize("count", [2, 30])
def test_few_people_make_a_usable_model(model, count):
    k = model.k_identity
    found = identity_answers(people(model, count), model, np.zeros(k))
    answers = IdentityAnswers(*found.values(), np.zeros(k))
    mean, information = answers.posterior(np.full(k, 0.2), 3.0)
    assert np.isfinite(mean).all()
    assert np.abs(mean).max() < 5
    assert np.linalg.eigvalsh(information).min() >= 1 - 1e-9


def test_only_channels_that_err_with_the_person_are_normalised(model):
    found = neutral_answers(people(model, 200), model)
    ratio = dict(zip(model.expression_names, found["error_ratio"], strict=True))
    assert ratio.pop("browInnerUp") == pytest.approx(0.04 / (0.0025 + 0.04 / 12), rel=0.3)
    assert not any(ratio.values())
    np.testing.assert_allclose(found["mean"], 0.4, atol=0.05)


def test_people_are_looked_at(model):
    from face_recon_ros.training.config import PointConfig

    seen = look_at_people(find_model("face_points.onnx"), PointConfig(pool_size=96), 2)
    assert len(seen) == 2
    for person in seen:
        assert person.answers.shape[1:] == (model.k_identity,)
        assert len(person.answers) == len(person.seen) == len(person.expression) > 1
    k = model.k_identity
    assert np.abs(seen[0].answers.mean(0) - seen[1].answers.mean(0)).max() > 0.1
    assert IdentityAnswers(*identity_answers(seen, model, np.zeros(k)).values(), np.zeros(k))
