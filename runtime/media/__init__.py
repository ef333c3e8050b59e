"""Photos and videos in, photos and videos out."""
