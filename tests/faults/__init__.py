# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that a host meets in years, injected: the hooks and the watcher survive them."""
