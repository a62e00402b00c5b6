# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The boards: edge of the grid, policy sizes, where a move stands in the policy. Part of the stand-in, see `app`."""

from __future__ import annotations

from dataclasses import dataclass

HEX_DIRECTIONS = ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))
SQUARE_DIRECTIONS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))


@dataclass(frozen=True)
class Board:
    """A board as the exporter and the network see it."""

    name: str
    size: int  # cells along the edge of the grid that holds the board
    policy_size: int  # of the encoder; the network needs max_policy_index + 1
    hexagonal: bool

    @property
    def directions(self) -> tuple[tuple[int, int], ...]:
        return HEX_DIRECTIONS if self.hexagonal else SQUARE_DIRECTIONS

    @property
    def max_distance(self) -> int:
        return self.size - 1

    @property
    def movement_channels(self) -> int:
        return len(self.directions) * self.max_distance

    @property
    def max_policy_index(self) -> int:
        """The last index: every move that neither places nor moves a piece."""
        return (3 + self.movement_channels) * self.size**2

    def cell(self, point: dict | None) -> int | None:
        """Number of the cell in the grid, row by row; None when the point is off the grid."""
        if not point:
            return None
        shift = self.size // 2 if self.hexagonal else 0
        column, row = int(point["x"]) + shift, int(point["y"]) + shift
        if 0 <= column < self.size and 0 <= row < self.size:
            return row * self.size + column
        return None

    def policy_index(self, move: dict) -> int:
        """Where a move stands in the policy: placements, then movements by direction and distance, then the rest."""
        target, origin = self.cell(move.get("to")), self.cell(move.get("from"))
        cells = self.size**2
        if move.get("type") == "place_ring" and target is not None:
            return target * 3 + min(max(int(move.get("placementCount") or 1), 1), 3) - 1
        if origin is None or target is None or origin == target:
            return self.max_policy_index
        step_x, step_y = target % self.size - origin % self.size, target // self.size - origin // self.size
        distance = max(abs(step_x), abs(step_y))
        direction = (step_x // distance, step_y // distance) if not (step_x % distance or step_y % distance) else None
        if direction not in self.directions:
            return self.max_policy_index
        channel = self.directions.index(direction) * self.max_distance + distance - 1
        return 3 * cells + channel * cells + origin


BOARDS = {
    "square8": Board("square8", 8, 7000, False),
    "square19": Board("square19", 19, 67000, False),
    "hex8": Board("hex8", 9, 4500, True),
    "hexagonal": Board("hexagonal", 25, 91876, True),
}
