"""DECA at the user's: a face's shape, expression, pose, light and wrinkles from a photo, and pictures of them."""
