"""Scenes on disk, and an oracle that knows them."""

from face_recon_ros.evaluation.datasets import read_stored_image
from face_recon_ros.evaluation.synthetic import write_scenes


def write_and_learn(folder, scenes_list, oracle, **known):
    """Writes scenes and tells the oracle what its pictures show."""
    scenes_list = list(scenes_list)
    write_scenes(scenes_list, folder)
    for scene in scenes_list:
        rgb = read_stored_image(folder / f"{scene.name}.png")
        oracle.learn(rgb, scene, **known.get(scene.name, {}))
    return scenes_list
