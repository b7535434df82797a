"""Cameras, rotations and meshes: pure maths, no networks."""

from next3d.geometry.cameras import Camera

__all__ = ["Camera"]
