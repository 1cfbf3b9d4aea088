# SPDX-License-Identifier: GPL-3.0-or-later
"""What needs neither root nor a daemon."""
