"""The method itself: numpy, OpenCV and ONNX Runtime; no ROS, no torch."""
