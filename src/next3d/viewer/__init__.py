"""The viewer: a local server and a page on which an avatar can be turned, moved, driven live and exported.

``server`` wires the parts: ``protocol`` (what is asked), ``worker`` (who is served next), ``render`` with
``identities`` and ``views`` (how a picture comes about), ``session`` (one connected page), ``live`` (driven by a
camera), ``jobs`` and ``exports`` (what takes longer), ``guard`` (who may ask). ``client`` is for other programs.
"""
