import numpy as np
import pytest

from hmtl_ablate.data.formats import EMOTIONS
from hmtl_ablate.data.rendered import ACTION_UNITS, MAX_ANGLE, render_faces


def test_a_face_depends_on_its_number_and_seed_alone() -> None:
    images, labels = render_faces(6, 48, seed=3)
    again, relabels = render_faces(2, 48, seed=3, start=4)
    assert np.array_equal(images[4:], again)
    assert all(np.array_equal(labels[name][4:], relabels[name]) for name in labels)
    assert not np.array_equal(images, render_faces(6, 48, seed=4)[0])


@pytest.mark.parametrize("size", [16, 48, 97])
def test_shapes_types_and_ranges(size: int) -> None:
    images, labels = render_faces(5, size, seed=0)
    assert images.shape == (5, size, size, 3)
    assert images.dtype == np.uint8
    assert all(image.std() > 10 for image in images)
    assert labels["emotion"].dtype == labels["gender"].dtype == np.int64
    assert labels["pose"].shape == (5, 3)
    assert np.abs(labels["pose"]).max() <= MAX_ANGLE


def test_labels_are_balanced() -> None:
    labels = render_faces(1600, 16, seed=1)[1]
    counts = np.bincount(labels["emotion"], minlength=8)
    assert counts.min() > 150  # of 200 expected; 3.7 standard deviations
    assert 700 < labels["gender"].sum() < 900
    assert labels["pose"].std(axis=0).min() > 4
    assert set(ACTION_UNITS) == set(EMOTIONS)


def test_emotions_differ_on_average_where_they_should() -> None:
    """Surprise opens the mouth, which is dark inside; anger does not: the lower middle of the face is darker."""
    images, labels = render_faces(800, 48, seed=2)
    mouth = images[:, 33:40, 20:28].mean(axis=(1, 2, 3)) - images[:, 18:40, 12:36].mean(axis=(1, 2, 3))
    of = {name: mouth[labels["emotion"] == number].mean() for number, name in enumerate(EMOTIONS)}
    assert of["surprise"] < of["anger"] - 10


def test_yaw_moves_the_face_s_middle() -> None:
    """Turned faces show more of one cheek: the picture is less symmetric than a frontal one."""
    images, labels = render_faces(600, 48, seed=5)
    grey = images.mean(axis=3)[:, 14:40, 10:38]
    lopsided = np.abs(grey - grey[:, :, ::-1]).mean(axis=(1, 2))
    yaw = np.abs(labels["pose"][:, 0])
    assert lopsided[yaw > 20].mean() > lopsided[yaw < 5].mean() + 3
