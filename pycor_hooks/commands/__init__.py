# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands, a module for each, imported when it is called: `cli` says which there are."""
