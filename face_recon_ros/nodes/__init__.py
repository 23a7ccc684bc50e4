"""ROS 2 nodes: thin; what they compute is in `core`, what they say goes through `conversions`."""
