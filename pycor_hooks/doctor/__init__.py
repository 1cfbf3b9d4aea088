# SPDX-License-Identifier: GPL-3.0-or-later
"""`doctor`: what could be wrong with this host, one module per theme, each check one line.

A theme looks (I/O, which may fail) and judges (pure); `check` is what all of them answer with.
"""
