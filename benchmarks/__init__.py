"""The measuring room: speed, quality and the pictures that numbers miss."""
