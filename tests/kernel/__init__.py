# SPDX-License-Identifier: GPL-3.0-or-later
"""The hooks on real mounts, in a mount namespace of the test's own."""
