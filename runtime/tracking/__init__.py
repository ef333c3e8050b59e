"""Faces in frames: detection, landmarks, pose, expression and smoothing."""
