"""Heads as Wavefront OBJ with a material (MTL) and its texture (PNG): three files side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from face_recon_ros.io.folders import written
from face_recon_ros.io.gltf import TexturedHead
from face_recon_ros.io.images import png_bytes


def write_textured_obj(path: str | Path, head: TexturedHead) -> tuple[Path, Path, Path]:
    """Writes NAME.obj, NAME.mtl and NAME.png; morph targets and animation have no place there.

    Args:
        path: of the OBJ file.
        head: metres, face frame.

    Returns:
        The three files.

    Raises:
        DataError: nothing can be written there.
    """
    obj = Path(path)
    mtl, png = obj.with_suffix(".mtl"), obj.with_suffix(".png")
    material = "newmtl skin\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\n" + f"map_Kd {png.name}\n"
    rows = ["# face_recon_ros", f"mtllib {mtl.name}", "usemtl skin"]
    rows += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in head.vertices.tolist()]
    rows += [f"vt {u:.6g} {v:.6g}" for u, v in head.uvs.tolist()]
    corners = np.stack([head.triangles, head.uv_triangles], axis=-1).reshape(-1, 6) + 1
    rows += ["f {}/{} {}/{} {}/{}".format(*row) for row in corners.tolist()]
    with written(obj, "choose another place"):
        obj.write_text("\n".join(rows) + "\n")
        mtl.write_text(material)
        png.write_bytes(png_bytes(head.texture))
    return obj, mtl, png
