# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of its own that a namespaced node finds in its overlay: names, keys, sshd."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Mapping

from lab.instance import Instance, Node

SSHD_CONFIG = """\
Port 22
ListenAddress {address}
HostKey /etc/ssh/ssh_lab_host_key
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
PidFile none
PrintMotd no
PrintLastLog no
MaxStartups 100
MaxSessions 100
LogLevel ERROR
AcceptEnv LANG LC_*
SetEnv {env}
Subsystem sftp internal-sftp
"""


def furnish(instance: Instance, node: Node, upper: pathlib.Path, login_env: Mapping[str, str]) -> None:
    """Write what makes an overlay of the machine a node of the lab."""
    keys = instance.key.parent
    public = (keys / "id_ed25519.pub").read_text()
    host_key = (keys / "host.pub").read_text()
    names = "".join(f"{other.address} {other.name}\n" for other in instance.nodes)
    known = "".join(f"{other.name},{other.address} {host_key}" for other in instance.nodes)
    env = " ".join(f'"{name}={value}"' for name, value in login_env.items())

    write(upper, "/etc/hostname", f"{node.name}\n")
    write(upper, "/etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{names}")
    write(upper, "/etc/ssh/sshd_lab_config", SSHD_CONFIG.format(address=node.address, env=env))
    write(upper, "/etc/ssh/ssh_lab_host_key", (keys / "host").read_text(), 0o600)
    # The start files of the machine's own root may do anything, and would do it at every login.
    for name in (".bashrc", ".profile", ".bash_profile"):
        write(upper, f"{node.home}/{name}", "")
    # Of the machine's own ~/.ssh and ~/ringrift a node must see nothing.
    own(upper, f"{node.home}/.ssh", 0o700)
    own(upper, f"{node.home}/ringrift", 0o755)
    write(upper, f"{node.home}/.ssh/authorized_keys", public, 0o600)
    write(upper, f"{node.home}/.ssh/known_hosts", known, 0o600)
    if not node.trains:
        write(upper, f"{node.home}/.ssh/id_ed25519", instance.key.read_text(), 0o600)
        write(upper, f"{node.home}/.ssh/id_ed25519.pub", public)


def directory(upper: pathlib.Path, path: str) -> pathlib.Path:
    """A directory of the overlay's upper layer, with the machine's owner and mode where the machine has it too."""
    here, there = upper, pathlib.Path("/")
    for part in pathlib.Path(path).parts[1:]:
        here, there = here / part, there / part
        if not here.exists():
            here.mkdir(mode=0o755)
            if there.is_dir():
                info = there.stat()
                os.chown(here, info.st_uid, info.st_gid)
                shutil.copymode(there, here)
    return here


def own(upper: pathlib.Path, path: str, mode: int) -> pathlib.Path:
    """A directory that hides the machine's one of the same name."""
    here = directory(upper, path)
    os.chown(here, 0, 0)
    here.chmod(mode)
    os.setxattr(here, "trusted.overlay.opaque", b"y")
    return here


def write(upper: pathlib.Path, path: str, text: str, mode: int = 0o644) -> pathlib.Path:
    """A file of the node's own."""
    target = directory(upper, os.path.dirname(path)) / os.path.basename(path)
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as stream:
        stream.write(text)
    target.chmod(mode)
    return target
