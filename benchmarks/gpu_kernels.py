"""Every CUDA kernel timed on a GPU, over the bandwidth of a copy and beside what torch would do instead.

`python -m reenact.benchmarks.gpu_kernels [--json FILE] [--markdown FILE]`. `--try` runs all of it on the CPU, in g++'s
build and at tiny sizes, to see that the script works; its times mean nothing.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..kernels import crops, cuda, drawings, host, mesh_warp, motions, raster_device, warp
from ..kernels.launch import Launcher
from ..reference.synthetic import helix_model
from .gpu_timing import Row, Work, copy_bandwidth, row, table

__all__ = ["Bench", "main"]


class Bench:
    """Where it runs, and how large: `shrink` divides sides, for trying out."""

    def __init__(self, device: str, launcher: Launcher, shrink: int = 1) -> None:
        self.device, self.launcher, self.shrink = device, launcher, shrink
        self.runs = 30 if shrink == 1 else 1
        self.copied = copy_bandwidth(device, 512 if shrink == 1 else 1)
        self.random = torch.Generator(device).manual_seed(1)

    def rows(self) -> Iterator[Row]:
        """All kernels."""
        yield from self._one_map()
        yield from self._pyramid()
        yield from self._motions()
        yield from self._pictures()
        yield from self._drawings()
        yield from self._raster()

    def _row(
        self, name: str, work: Work, moved: int | None, baseline: str = "", instead: Work | None = None
    ) -> Row:
        return row(
            name, work, moved=moved, copied=self.copied, runs=self.runs, baseline=baseline, instead=instead
        )

    def _normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=self.random, device=self.device).to(dtype)

    def _bytes(self, *shape: int) -> Tensor:
        return torch.randint(0, 256, shape, generator=self.random, device=self.device, dtype=torch.uint8)

    def _grid(self, height: int, width: int) -> Tensor:
        """(1, h, w, 2): the picture turned and pulled about a little, as faces are."""
        angle = 0.1
        turn = torch.tensor([[np.cos(angle), -np.sin(angle), 0.02], [np.sin(angle), np.cos(angle), -0.03]])
        grid = functional.affine_grid(turn[None].float(), [1, 1, height, width], align_corners=False)
        return (grid + 0.02 * torch.sin(9 * grid.flip(-1))).to(self.device).contiguous()

    def _one_map(self) -> Iterator[Row]:
        side, channels = 1024 // self.shrink, 128 // min(self.shrink, 16)
        grid = self._grid(side, side)
        sample = partial(functional.grid_sample, align_corners=False)
        for dtype in (torch.float16, torch.float32):
            planes = self._normal(1, channels, side, side, dtype=dtype)
            last = planes.permute(0, 2, 3, 1).contiguous()
            same = grid.to(dtype)  # grid_sample wants one type for both
            layouts: tuple[tuple[warp.Layout, Tensor, Tensor], ...] = (
                ("NCHW", planes, planes),
                ("NHWC", last, last.permute(0, 3, 1, 2)),
            )
            for layout, maps, seen_by_torch in layouts:
                out = torch.empty_like(maps)
                yield self._row(
                    f"warp, {layout} {str(dtype).removeprefix('torch.')}, {channels} x {side} x {side}",
                    partial(warp.warp, self.launcher, maps, warp.Field(grid), out, layout=layout),
                    moved=2 * maps.nbytes + grid.nbytes,
                    baseline="grid_sample" if layout == "NCHW" else "grid_sample, channels last",
                    instead=partial(sample, seen_by_torch, same),
                )

    def _pyramid(self) -> Iterator[Row]:
        """The four maps of Face2Face-rho at 512 and at 1408."""
        for size in (512, 1408):
            sides = [(28, size // 4), (72, size // 8), (140, size // 16), (280, size // 16)]
            maps = [
                self._normal(1, c, max(1, s // self.shrink), max(1, s // self.shrink), dtype=torch.float16)
                for c, s in sides
            ]
            outs = [torch.empty_like(m) for m in maps]
            planes = self._grid(maps[0].shape[2], maps[0].shape[3]).permute(0, 3, 1, 2).contiguous()
            field = warp.Field(planes, planar=True)
            targets = [warp.Target(m, out) for m, out in zip(maps, outs, strict=True)]

            def with_torch(maps: list[Tensor] = maps, planes: Tensor = planes) -> list[Tensor]:
                made = []
                for m in maps:
                    few = functional.interpolate(planes, size=m.shape[2:], mode="nearest").permute(0, 2, 3, 1)
                    made.append(functional.grid_sample(m.float(), few, align_corners=False).half())
                return made

            def one_by_one(targets: list[warp.Target] = targets, field: warp.Field = field) -> None:
                for target in targets:
                    warp.warp_pyramid(self.launcher, [target], field)

            moved = sum(2 * m.nbytes for m in maps) + planes.nbytes
            for baseline, instead in (
                ("resize and grid_sample, four times", with_torch),
                ("four launches", one_by_one),
            ):
                yield self._row(
                    f"warp_pyramid, Face2Face-rho at {size}",
                    partial(warp.warp_pyramid, self.launcher, targets, field),
                    moved=moved,
                    baseline=baseline,
                    instead=instead,
                )

    def _motions(self) -> Iterator[Row]:
        side, count = 64 // min(self.shrink, 8), 10
        source = self._normal(1, 3, side, side)
        places, ends = self._normal(1, count, 2).tanh(), self._normal(1, count, 2).tanh()
        turns = torch.eye(2, device=self.device).expand(1, count, 2, 2) + 0.1 * self._normal(1, count, 2, 2)
        turns = turns.contiguous()
        points = motions.Keypoints(places, ends, turns)
        out = torch.empty(1, 4 * (count + 1), side, side, device=self.device)
        yield self._row(
            f"sparse_motions, {count} keypoints, {side} x {side}",
            lambda: motions.sparse_motions(self.launcher, source, points, out),
            moved=None,
            baseline="torch, operator by operator",
            instead=lambda: _sparse_with_torch(source, places, ends, turns),
        )
        logits, field = (
            self._normal(1, count + 1, side, side),
            torch.empty(1, side, side, 2, device=self.device),
        )
        yield self._row(
            f"combine_motions, {count + 1} masks, {side} x {side}",
            lambda: motions.combine_motions(self.launcher, logits, points, field),
            moved=None,
            baseline="torch, operator by operator",
            instead=lambda: _combine_with_torch(logits, places, ends, turns),
        )

    def _pictures(self) -> Iterator[Row]:
        height, width, side = 1080 // self.shrink, 1920 // self.shrink, 512 // self.shrink
        photo = self._bytes(height, width, 3)
        maps = torch.from_numpy(crops.box_map(width * 0.2, 0, height, height, side, side))[None].to(
            self.device
        )
        made = torch.empty(1, 3, side, side, dtype=torch.float16, device=self.device)
        usual = crops.Normalisation()

        def with_torch() -> Tensor:
            square = photo[:, int(width * 0.2) : int(width * 0.2) + height].permute(2, 0, 1)[None].half()
            small = functional.interpolate(square, size=(side, side), mode="bilinear", align_corners=False)
            return small / 127.5 - 1

        yield self._row(
            f"crop, {width} x {height} to {side} x {side}, float16",
            lambda: crops.crop(self.launcher, photo, maps, made, normalisation=usual),
            moved=None,
            baseline="torch, operator by operator",
            instead=with_torch,
        )
        mask, result = self._bytes(1, side, side), torch.empty_like(photo)
        yield self._row(
            f"paste, {side} x {side} into {width} x {height}",
            lambda: crops.paste(self.launcher, made, maps, mask, photo, result, normalisation=usual),
            moved=2 * photo.nbytes,
        )
        mesh = _mesh(height, width, self.device)
        yield self._row(
            f"mesh_warp, 1,922 triangles, {width} x {height}",
            lambda: mesh_warp.mesh_warp(self.launcher, mesh, photo, result),
            moved=2 * photo.nbytes,
        )

    def _drawings(self) -> Iterator[Row]:
        points = self._normal(72, 2).tanh()
        strokes = torch.stack([torch.arange(70), torch.arange(1, 71)], 1).int().to(self.device)
        colours = self._bytes(70, 3)
        pictures = [torch.empty(s, s, 3, dtype=torch.uint8, device=self.device) for s in (32, 64, 128)]
        three = [drawings.Drawing(out, points, strokes, colours) for out in pictures]
        yield self._row(
            "draw, 70 strokes into each of three pictures",
            lambda: drawings.draw(self.launcher, three),
            moved=None,
        )

    def _raster(self) -> Iterator[Row]:
        """A head of 9,976 triangles, as GDPW draws one for every frame."""
        side = 256 // min(self.shrink, 8)
        head = helix_model()
        corners = 8 * np.concatenate([head.v_template, np.full((len(head.v_template), 1), 1 / 8)], 1)
        vertices = torch.from_numpy(corners.astype(np.float32)).to(self.device)
        triangles = torch.from_numpy(np.asarray(head.f, np.int32)).to(self.device)
        keys = torch.empty(side, side, dtype=torch.int64, device=self.device)
        ids = torch.empty(side, side, dtype=torch.int32, device=self.device)
        uvz = torch.empty(side, side, 3, device=self.device)
        picture = torch.empty(1, 19, side, side, device=self.device)
        sets = [raster_device.Attributes(self._normal(len(corners), 19), picture)]

        def drawn() -> None:
            raster_device.rasterize(self.launcher, vertices, triangles, keys, ids, uvz)
            raster_device.cull(self.launcher, ids, uvz, vertices, triangles)
            raster_device.interpolate(self.launcher, sets, ids, uvz, triangles, layout="NCHW")

        yield self._row(f"rasterize, cull, interpolate 19, 9,976 triangles, {side} x {side}", drawn, None)


def _mesh(height: int, width: int, device: str) -> mesh_warp.Mesh:
    """A grid of 31 by 31 cells, its points moved a little."""
    rows, columns = np.meshgrid(np.linspace(0, height - 1, 32), np.linspace(0, width - 1, 32), indexing="ij")
    sources = np.stack([columns, rows], -1).reshape(-1, 2).astype(np.float32)
    targets = sources + 3 * np.sin(sources[:, ::-1] / 50).astype(np.float32)
    first = np.arange(31)[:, None] * 32 + np.arange(31)
    corners = [
        np.stack([first, first + 1, first + 32], -1),
        np.stack([first + 1, first + 33, first + 32], -1),
    ]
    triangles = np.concatenate([c.reshape(-1, 3) for c in corners]).astype(np.int32)
    return mesh_warp.Mesh(
        targets=torch.from_numpy(targets).to(device),
        sources=torch.from_numpy(sources).to(device),
        triangles=torch.from_numpy(triangles).to(device),
        owners=torch.zeros(height, width, dtype=torch.int32, device=device),
        origins=torch.empty(len(triangles), mesh_warp.ORIGIN_VALUES, device=device),
    )


def _motion_grids(places: Tensor, ends: Tensor, turns: Tensor, side: int) -> tuple[Tensor, Tensor]:
    axis = torch.linspace(-1, 1, side, device=places.device)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    away = grid[None, None] - ends[:, :, None, None]
    moved = torch.einsum("bkij,bkhwj->bkhwi", turns, away) + places[:, :, None, None]
    return grid, torch.cat([grid.expand(1, 1, -1, -1, -1), moved], 1)


def _sparse_with_torch(source: Tensor, places: Tensor, ends: Tensor, turns: Tensor) -> Tensor:
    side = source.shape[2]
    grid, moved = _motion_grids(places, ends, turns, side)
    heats = [torch.exp(-50 * ((grid - p[:, :, None, None]) ** 2).sum(-1)) for p in (ends, places)]
    heat = torch.cat([torch.zeros_like(heats[0][:, :1]), heats[0] - heats[1]], 1)
    count = moved.shape[1]
    deformed = functional.grid_sample(source.expand(count, -1, -1, -1), moved[0], align_corners=False)
    return torch.cat([heat[:, :, None], deformed[None]], 2).reshape(1, 4 * count, side, side)


def _combine_with_torch(logits: Tensor, places: Tensor, ends: Tensor, turns: Tensor) -> Tensor:
    _, moved = _motion_grids(places, ends, turns, logits.shape[2])
    return (logits.softmax(1)[..., None] * moved).sum(1)


def main() -> None:
    """Print the table; write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--try", dest="tried", action="store_true", help="on the CPU, tiny")
    options = parser.parse_args()
    reason = cuda.missing() or ("" if torch.cuda.is_available() else "this torch has no CUDA")
    if reason and not options.tried:
        sys.exit(f"Error: {reason}")
    if options.tried:
        bench = Bench("cpu", host.Launcher(), shrink=64)
    else:
        bench = Bench("cuda:0", cuda.Launcher(stream=torch.cuda.current_stream()))
    rows = list(bench.rows())
    text = table(rows)
    sys.stdout.write(text)
    if options.json:
        facts = {"copy_gigabytes_a_second": bench.copied, "kernels": [asdict(entry) for entry in rows]}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
