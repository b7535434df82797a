"""The generator, one short file for each part of the paper, in the order of the forward path:

mapping → neural_texture (§3.1) → texture_planes (§3.1) → mouth (§3.2) → static_planes (§3.3) → volume (§3.4) →
superres (§3.4), wired together in generator.py.
"""
