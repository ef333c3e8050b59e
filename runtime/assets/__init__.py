"""Data files that ship with the package: portraits, motion presets and the canonical face."""
