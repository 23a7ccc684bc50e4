"""Reading and writing: image sources, bags, meshes; no ROS."""
