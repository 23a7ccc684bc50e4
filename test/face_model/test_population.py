"""Real people's mean identity, from published distances."""

import numpy as np
import pytest

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import FACIAL_SKIN, load_morphable_model
from face_recon_ros.face_model.population import LANDMARKS, distances, population_mean


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


def test_published_distances_are_met_better_than_by_the_mean_face(model):
    measures = distances(model)
    before = np.array([m.mean_face - m.published for m in measures])
    after = np.array([m.population - m.published for m in measures])
    assert np.sqrt(np.square(after).mean()) < 0.4 * np.sqrt(np.square(before).mean())
    assert np.abs(after)[[m.name.endswith("facial depth") for m in measures]].max() < 1.0
    assert (np.abs(after) < np.maximum(np.abs(before), 1.0)).all()  # none is paid for by another


def test_the_mean_of_people_is_an_ordinary_and_symmetric_head(model):
    mean = population_mean(model)
    assert 0 < np.sqrt(np.square(mean).mean()) < 0.5
    head = model.neutral(mean)
    mirrored = head[model.symmetry] * [1, -1, 1]
    np.testing.assert_allclose(head, mirrored, atol=1e-6)


def test_landmarks_lie_where_their_names_say(model):
    at = {name: model.mean_shape[list(v)].mean(0) for name, v in LANDMARKS.items()}
    marks = model.mean_shape[model.landmarks_68]
    assert LANDMARKS["sellion"] == (model.sellion,)
    np.testing.assert_array_equal(at["menton"], marks[8])
    np.testing.assert_array_equal(at["subnasale"], marks[33])
    for name, mark in (("inner canthus", 42), ("outer canthus", 45), ("corner of the mouth", 54)):
        assert np.linalg.norm(at[name] - marks[mark]) < 0.005
    skin = model.mean_shape[model.subsets[FACIAL_SKIN]]
    assert at["pronasale"][0] > skin[:, 0].max() - 0.001
    ear = model.mean_shape[model.regions == model.region_names.index("ear")]
    ear = ear[ear[:, 1] > 0]
    assert np.linalg.norm(ear - at["tragion"], axis=1).min() < 0.003
    assert at["tragion"][0] < skin[:, 0].min() + 0.01  # where the ear begins
    assert ear[:, 2].min() < at["tragion"][2] < ear[:, 2].max()
    assert all(y >= -1e-6 for _, y, _ in at.values())


def test_other_models_are_refused(model, face_model_path):
    other = load_morphable_model(face_model_path, level="coarse")
    for wrong in (other, model.subset(FACIAL_SKIN)):
        with pytest.raises(ModelError, match="default face model"):
            population_mean(wrong)
