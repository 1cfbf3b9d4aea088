# SPDX-License-Identifier: GPL-3.0-or-later
"""Real daemons on any Debian 12: private LXD and Incus, images made on the spot, leak checks.

Used by tests/daemon and by the demo. Everything happens in a World, a mount and a network
namespace of its own, so that a run that dies leaves nothing mounted and no bridge on the host.
"""
