"""Image-space kernels (warps, rasterisation, compositing) and their plain twins; they know nothing of systems."""
