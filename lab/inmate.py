# SPDX-License-Identifier: GPL-3.0-or-later
"""One container of lab.liblxc as a service: it runs until SIGTERM, or is killed with all of it.

Run as ``systemd-run --property=Type=notify python -m lab.inmate DAEMON NAME [IDMAP...]``.
"""

from __future__ import annotations

import signal
import sys

from lab.liblxc import Container
from pycor_hooks import notify


def main(daemon: str, name: str, *idmap: str) -> None:
    """Start a container on the base called ``base``, and stop it when that is wanted.

    Args:
        daemon: the state directory.
        name: of the container, which must not exist yet.
        idmap: values of its lxc.idmap lines; none for a privileged one.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    container = Container(daemon, name)
    container.idmap = idmap
    container.start()
    notify.notify("READY=1")
    signal.sigwait({signal.SIGTERM})
    container.stop()
    container.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
