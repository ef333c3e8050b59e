"""Face2Face-rho (ECCV 2022): a portrait warped by a learned field that keypoint drawings and head pose steer."""
