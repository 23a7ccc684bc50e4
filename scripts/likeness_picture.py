#!/usr/bin/env python3
"""The README's picture of a likeness: photograph, mesh, and the avatar in three.js in Chromium.

    npm install --prefix /tmp/three three
    python scripts/likeness_picture.py PORTRAIT.jpg --three /tmp/three --out likeness.jpg

The browser is the tests' (`test/helpers/browser.py`).
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np

from face_recon_ros.cli.main import main as face_recon
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.overlay import render_mesh
from face_recon_ros.core.pipeline import FacePipeline, PipelineConfig
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.types import Image
from face_recon_ros.io.images import read_picture

ROOT = Path(__file__).resolve().parent.parent
SIDE = 300  # pixels of each picture
GROUND = 241  # grey that the page has when all is drawn
PAGE = """<!doctype html><body style="margin:0;background:#000"><script type="importmap">
{"imports": {"three": "./three.module.js", "three/addons/": "./jsm/"}}</script>
<script type="module">
import * as THREE from 'three';
import {GLTFLoader} from 'three/addons/loaders/GLTFLoader.js';
const side = SIDE, views = [[0, {}], [0, {mouthSmileLeft: 0.8, mouthSmileRight: 0.8}],
  [0.6, {mouthSmileLeft: 0.8, mouthSmileRight: 0.8, jawOpen: 0.3}]];
const renderer = new THREE.WebGLRenderer({antialias: true, preserveDrawingBuffer: true});
renderer.setSize(views.length * side, side);
renderer.setScissorTest(true);
document.body.append(renderer.domElement);
const scene = new THREE.Scene();
scene.background = new THREE.Color('rgb(GROUND,GROUND,GROUND)');
scene.add(new THREE.HemisphereLight(0xffffff, 0xbbbbbb, 2.4));
const lamp = new THREE.DirectionalLight(0xffffff, 1.4);
lamp.position.set(0.5, 1, 2);
scene.add(lamp);
const camera = new THREE.PerspectiveCamera(24, 1, 0.05, 10);
const head = (await new GLTFLoader().loadAsync('./head.glb')).scene;
scene.add(head);
const middle = new THREE.Box3().setFromObject(head).getCenter(new THREE.Vector3());
camera.position.set(middle.x, middle.y, middle.z + 0.78);
camera.lookAt(middle);
const mesh = head.getObjectByProperty('isMesh', true);
views.forEach(([turn, face], k) => {
  head.rotation.y = turn;
  mesh.morphTargetInfluences.fill(0);
  for (const [name, weight] of Object.entries(face))
    mesh.morphTargetInfluences[mesh.morphTargetDictionary[name]] = weight;
  renderer.setViewport(k * side, 0, side, side);
  renderer.setScissor(k * side, 0, side, side);
  renderer.render(scene, camera);
});
document.body.style.background = 'rgb(GROUND,GROUND,GROUND)';
</script>"""


def in_three(glb: Path, three: Path) -> np.ndarray:
    """(SIDE, 3 * SIDE, 3) the avatar in three.js: neutral, smiling, turned."""
    sys.path.insert(0, str(ROOT / "test" / "helpers"))
    from browser import Browser

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (three / "node_modules" / "three" / "build").glob("three.*.js"):
            shutil.copy(file, folder)
        shutil.copytree(three / "node_modules" / "three" / "examples" / "jsm", folder / "jsm")
        shutil.copy(glb, folder / "head.glb")
        page = PAGE.replace("SIDE", str(SIDE)).replace("GROUND", str(GROUND))
        (folder / "index.html").write_text(page)
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=name)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / "profile").mkdir()
        browser = Browser(folder / "profile")
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/index.html"
            picture = browser.look(url, lambda p: (p[-1, -1] == GROUND).all(), timeout_s=120)
        finally:
            browser.close()
            server.shutdown()
    return picture[:SIDE, : 3 * SIDE]


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("portrait", type=Path, help="photograph of one person")
    parser.add_argument("--three", type=Path, required=True, help="npm's prefix, with three in it")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    options = parser.parse_args()
    rgb = read_picture(options.portrait).rgb
    config = ReconstructorConfig(level="fine")
    pipeline = FacePipeline.from_config(PipelineConfig(reconstructor=config))
    face = max(pipeline.process_still(Image(rgb, 0.0)).faces, key=lambda f: f.box[2] - f.box[0])
    middle, side = (face.box[:2] + face.box[2:]) / 2, 2.0 * (face.box[2] - face.box[0])
    tiles = [Crop(middle.astype(np.float64), float(side), SIDE).extract(rgb)]
    tiles += [render_mesh(face.mesh, SIDE, yaw) for yaw in (0, 30)]
    with tempfile.TemporaryDirectory() as folder:
        glb = Path(folder) / "head.glb"
        if face_recon(["avatar", str(options.portrait), "--out", str(glb)]):
            raise SystemExit(2)
        tiles.append(in_three(glb, options.three))
    cv2.imwrite(str(options.out), np.hstack(tiles)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


if __name__ == "__main__":
    main()
