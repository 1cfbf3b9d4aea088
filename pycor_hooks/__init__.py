# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of LXD and Incus that share one root filesystem through OverlayFS."""

__version__ = "0.1.0"
