# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system whose server answers everything but reads, as a dead network mount does; who reads never ends.

``python -S _dead_mount.py MOUNTPOINT`` mounts it, needs root, says ``ready``, and serves until it is killed, saying
``read`` for each read that it leaves without an answer; at its end the kernel gives every reader an error. One file,
``file``, is in it. It speaks just enough of the FUSE protocol.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

HEADER = struct.Struct("<IIQQIIII")
REPLY = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q10I")
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, OPENDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = (
    1, 2, 3, 14, 15, 18, 25, 26, 27, 29, 36, 38, 42,
)  # fmt: skip
UNANSWERED = (FORGET, READ, INTERRUPT, BATCH_FORGET)
ROOT, FILE = 1, 2
SIZE = 4096
DIRECT_IO = 1
MINOR = 31


def attributes(node: int) -> bytes:
    mode = 0o40755 if node == ROOT else 0o100644
    return ATTRIBUTES.pack(node, SIZE, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, SIZE, 0)


def answer(opcode: int, node: int, body: bytes) -> bytes:
    """What the kernel is told.

    :raises OSError: that it is not there or not known
    """
    if opcode == INIT:
        return struct.pack("<4I2H2I2H8I", 7, MINOR, 0, 0, 16, 12, SIZE, 1, 1, 0, *[0] * 8)
    if opcode == GETATTR:
        return struct.pack("<QII", 3600, 0, 0) + attributes(node)
    if opcode == LOOKUP:
        if body.rstrip(b"\0") != b"file":
            raise OSError(errno.ENOENT, "")
        return struct.pack("<4Q2I", FILE, 0, 3600, 3600, 0, 0) + attributes(FILE)
    if opcode in (OPEN, OPENDIR):
        return struct.pack("<QII", 1, DIRECT_IO, 0)
    if opcode in (RELEASE, FLUSH, RELEASEDIR, DESTROY):
        return b""
    raise OSError(errno.ENOSYS, "")


def main() -> None:
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"dead", os.fsencode(sys.argv[1]), b"fuse", ctypes.c_ulong(0), options):
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    print("ready", flush=True)
    while True:
        request = os.read(device, 1 << 20)
        _length, opcode, unique, node = HEADER.unpack_from(request)[:4]
        if opcode == READ:
            # Only from now on SIGKILL does not end the reader.
            print("read", flush=True)
        if opcode in UNANSWERED:
            continue
        try:
            code, data = 0, answer(opcode, node, request[HEADER.size :])
        except OSError as exc:
            code, data = -(exc.errno or errno.EIO), b""
        os.write(device, REPLY.pack(REPLY.size + len(data), code, unique) + data)


if __name__ == "__main__":
    main()
