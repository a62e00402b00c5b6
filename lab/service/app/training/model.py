# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network: a 1x1 convolution, pooled, with a value and a policy head; plain numpy, trained with Adam.

It stands for the real one's 353 tensors. Part of the stand-in, see `app`.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from app.training.boards import Board

GLOBALS = 20
BETAS = (0.9, 0.999)
EPSILON = 1e-8
# The toy learns from a few steps what the real network learns from many.
EAGERNESS = 20


class Network:
    """Parameters, forward and backward pass."""

    def __init__(self, board: Board, in_channels: int, policy_size: int, num_players: int, seed: int = 42) -> None:
        self.board = board
        self.in_channels = in_channels
        self.policy_size = policy_size
        self.num_players = num_players
        width = self.width = 8 if policy_size < 10000 else 4
        draw = np.random.default_rng(seed)

        def weights(*shape: int) -> np.ndarray:
            return draw.normal(0.0, (2.0 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)

        self.buffers: dict[str, np.ndarray] = OrderedDict()
        if board.hexagonal:
            size = board.size
            grid = np.arange(size) - size // 2
            self.buffers["hex_mask"] = (np.abs(grid[:, None] + grid[None, :]) <= size // 2).astype(np.float32)[
                None, None
            ]
            self.buffers["placement_idx"] = np.arange(3 * size**2, dtype=np.int64).reshape(size, size, 3)
            self.buffers["movement_idx"] = 3 * size**2 + np.arange(
                board.movement_channels * size**2, dtype=np.int64
            ).reshape(board.movement_channels, size, size)
        self.parameters: dict[str, np.ndarray] = OrderedDict(
            {
                "conv1.weight": weights(width, in_channels, 1, 1),
                "conv1.bias": np.zeros(width, np.float32),
                "bn1.weight": np.ones(width, np.float32),
                "bn1.bias": np.zeros(width, np.float32),
                "global_fc.weight": weights(width, GLOBALS),
                "value_fc.weight": weights(1, width),
                "value_fc.bias": np.zeros(1, np.float32),
                "policy_fc.weight": weights(policy_size, width) * np.float32(0.1),
                "policy_fc.bias": np.zeros(policy_size, np.float32),
            }
        )

    @property
    def model_class(self) -> str:
        return "HexNeuralNet_v4" if self.board.hexagonal else "RingRiftCNN_v4"

    def state_dict(self) -> OrderedDict[str, np.ndarray]:
        """A copy of all tensors, by name."""
        return OrderedDict((name, array.copy()) for name, array in [*self.buffers.items(), *self.parameters.items()])

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Take tensors over; raises RuntimeError when names or shapes are not this network's."""
        expected = {**self.buffers, **self.parameters}
        missing = [name for name in expected if name not in state]
        unexpected = [name for name in state if name not in expected]
        wrong = [
            f"size mismatch for {name}: copying a param with shape torch.Size({list(np.shape(state[name]))}) from "
            f"checkpoint, the shape in current model is torch.Size({list(array.shape)})."
            for name, array in expected.items()
            if name in state and np.shape(state[name]) != array.shape
        ]
        if missing or unexpected or wrong:
            problems = [
                *([f"Missing key(s) in state_dict: {missing}."] if missing else []),
                *([f"Unexpected key(s) in state_dict: {unexpected}."] if unexpected else []),
                *wrong,
            ]
            raise RuntimeError(f"Error(s) in loading state_dict for {self.model_class}:\n\t" + "\n\t".join(problems))
        for target in (self.buffers, self.parameters):
            for name in target:
                target[name] = np.array(state[name], dtype=target[name].dtype)

    def losses(
        self, features: np.ndarray, scalars: np.ndarray, values: np.ndarray, policies: np.ndarray, learn: bool = True
    ) -> tuple[float, float, float, dict[str, np.ndarray]]:
        """Value loss, policy loss, share of right moves, and gradients by name when `learn`."""
        p = self.parameters
        count, cells = len(features), features.shape[2] * features.shape[3]
        planes = features.reshape(count, self.in_channels, cells)
        kernel = p["conv1.weight"].reshape(self.width, self.in_channels)
        active = kernel @ planes + p["conv1.bias"][:, None]
        hidden = np.maximum(active, 0)
        pooled = hidden.mean(axis=2)
        mixed = pooled * p["bn1.weight"] + p["bn1.bias"] + scalars @ p["global_fc.weight"].T
        code = np.maximum(mixed, 0)
        value = np.tanh(code @ p["value_fc.weight"].T + p["value_fc.bias"])[:, 0]
        logits = code @ p["policy_fc.weight"].T + p["policy_fc.bias"]
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        odds /= odds.sum(axis=1, keepdims=True)
        rows = np.arange(count)
        value_loss = float(np.mean((value - values) ** 2))
        policy_loss = float(-np.mean(np.log(odds[rows, policies] + 1e-12)))
        accuracy = float(np.mean(odds.argmax(axis=1) == policies))
        if not learn:
            return value_loss, policy_loss, accuracy, {}

        by_value = (2 * (value - values) * (1 - value**2) / count)[:, None].astype(np.float32)
        odds[rows, policies] -= 1
        by_logits = (odds / count).astype(np.float32)
        by_code = (by_value @ p["value_fc.weight"] + by_logits @ p["policy_fc.weight"]) * (mixed > 0)
        by_pooled = by_code * p["bn1.weight"]
        by_active = (by_pooled[:, :, None] / cells) * (active > 0)
        gradients = {
            "conv1.weight": np.einsum("nhk,nck->hc", by_active, planes, optimize=True).reshape(p["conv1.weight"].shape),
            "conv1.bias": by_active.sum(axis=(0, 2)),
            "bn1.weight": (by_code * pooled).sum(axis=0),
            "bn1.bias": by_code.sum(axis=0),
            "global_fc.weight": by_code.T @ scalars,
            "value_fc.weight": by_value.T @ code,
            "value_fc.bias": by_value.sum(axis=0),
            "policy_fc.weight": by_logits.T @ code,
            "policy_fc.bias": by_logits.sum(axis=0),
        }
        return value_loss, policy_loss, accuracy, gradients


class Adam:
    """The optimizer, and its state as torch lays it out."""

    def __init__(self, network: Network, rate: float) -> None:
        self.network = network
        self.rate = rate
        self.steps = 0
        self.means = {name: np.zeros_like(array) for name, array in network.parameters.items()}
        self.squares = {name: np.zeros_like(array) for name, array in network.parameters.items()}

    def step(self, gradients: dict[str, np.ndarray]) -> None:
        self.steps += 1
        for name, gradient in gradients.items():
            mean, square = self.means[name], self.squares[name]
            mean += (1 - BETAS[0]) * (gradient - mean)
            square += (1 - BETAS[1]) * (gradient**2 - square)
            correction = (1 - BETAS[1] ** self.steps) ** 0.5 / (1 - BETAS[0] ** self.steps)
            self.network.parameters[name] -= (
                np.float32(EAGERNESS * self.rate * correction) * mean / (np.sqrt(square) + EPSILON)
            )

    def state_dict(self) -> dict:
        state = {
            number: {
                "step": np.array(self.steps, np.float32),
                "exp_avg": self.means[name].copy(),
                "exp_avg_sq": self.squares[name].copy(),
            }
            for number, name in enumerate(self.means)
        }
        group = {
            "lr": self.rate,
            "betas": BETAS,
            "eps": EPSILON,
            "weight_decay": 0.0001,
            "amsgrad": False,
            "maximize": False,
            "foreach": None,
            "capturable": False,
            "differentiable": False,
            "fused": None,
            "params": list(range(len(self.means))),
        }
        return {"state": state if self.steps else {}, "param_groups": [group]}

    def load_state_dict(self, state: dict) -> None:
        self.rate = float(state["param_groups"][0]["lr"])
        for number, name in enumerate(self.means):
            entry = state["state"].get(number)
            if entry:
                self.steps = int(entry["step"])
                self.means[name] = np.array(entry["exp_avg"], np.float32)
                self.squares[name] = np.array(entry["exp_avg_sq"], np.float32)
