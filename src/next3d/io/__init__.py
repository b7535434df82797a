"""The only rooms that touch user files: atomic writes, pictures, videos and the restricted unpickler."""
