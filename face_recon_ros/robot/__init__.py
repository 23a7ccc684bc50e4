"""Gaze control: choice of the person, prediction, motion of the neck."""
