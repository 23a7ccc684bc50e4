"""Necks for tests: the pan-tilt of urdf/, and an odd one."""

from pathlib import Path

from face_recon_ros.robot.neck import neck_from_urdf

URDF = (Path(__file__).parents[2] / "urdf" / "pan_tilt.urdf").read_text()
JOINTS = ("pan_joint", "tilt_joint")
#: A roll-pitch-yaw neck with a camera off every axis, links hung at odd angles.
ODD_NECK = """<robot name="odd">
<joint name="mount" type="fixed"><parent link="torso"/><child link="stem"/>
  <origin xyz="0.1 0 0.5" rpy="0 0.2 0"/></joint>
<joint name="roll" type="revolute"><parent link="stem"/><child link="a"/>
  <axis xyz="2 0 0"/><limit lower="-0.6" upper="0.6" velocity="3"/></joint>
<joint name="pitch" type="revolute"><parent link="a"/><child link="b"/>
  <origin xyz="0 0.02 0.05"/><axis xyz="0 1 0"/><limit lower="-0.8" upper="0.8" velocity="3"/>
</joint>
<joint name="yaw" type="continuous"><parent link="b"/><child link="head"/>
  <axis xyz="0 0 1"/><limit velocity="5"/></joint>
<joint name="eye" type="fixed"><parent link="head"/><child link="camera"/>
  <origin xyz="0.08 0.03 0.1" rpy="0 0 0"/></joint>
</robot>"""


def pan_tilt(**options):
    options = {"max_velocity": 2.0, "max_acceleration": 8.0, "limit_margin": 0.02} | options
    return neck_from_urdf(URDF, JOINTS, "camera_optical_frame", **options)


def odd_neck():
    names = ("yaw", "roll", "pitch")
    return neck_from_urdf(ODD_NECK, names, "camera", look_axis="x", max_acceleration=9.0)
