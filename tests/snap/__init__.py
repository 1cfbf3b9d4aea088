# SPDX-License-Identifier: GPL-3.0-or-later
"""LXD from a simulated snap, and daemons in private mount namespaces."""
