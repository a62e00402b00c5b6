# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the RingRift ai-service, for the lab.

This tree is NOT the RingRift service. It was written from what the real service was measured to do: the command lines
it takes, the files, locks, events and log lines it leaves, its exit codes and its mistakes. It plays no game and its
network is a toy, but it does train on the NPZ that it is given, on the CPU, with numpy and nothing else. It stands on a
node as `~/ringrift/ai-service` and is run from there: `python -m app.training.train`,
`python scripts/export_replay_dataset.py`, `python scripts/launch_daemons.py`,
`python -m app.coordination.training_launcher`.

Environment of the stand-in alone (all others are the service's own):

    LAB_EPOCH_SECONDS    least time of an epoch, in seconds (0.6)
    LAB_SIGTERM_SECONDS  time that the emergency checkpoint takes, in seconds (1.0)
    LAB_SAVE_SECONDS     time between the creation of a `.pth.tmp` and its rename, in seconds (0)
    LAB_CHECKPOINT_INTERVAL      default of --checkpoint-interval, in epochs (5)
    LAB_EARLY_STOPPING_PATIENCE  default of --early-stopping-patience, in epochs; 0: never (25)
    LAB_RETRY_SECONDS    pause per skipped epoch while the training circuit is open, in seconds (5)
    LAB_EXPORT_SECONDS   pause of an export between opening its file and writing to it, in seconds (0)
    LAB_WORKER_POLL_SECONDS  how often a data loader worker looks for its parent, in seconds (0.5)
    LAB_MIN_FREE_GB      free disk below which a synchronous checkpoint is refused, in GB (1.0)
    LAB_TRAIN_FAULT      a JSON file of faults that the trainer obeys (data/lab/train_fault.json), see
                         app/training/faults.py
    LAB_REDIS            1: speak to Redis without the redis package, see app/coordination/mini_redis.py
"""

from __future__ import annotations

import os

# One thread: a hundred trainers may share two cores.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
