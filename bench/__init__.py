# SPDX-License-Identifier: GPL-3.0-or-later
"""What the numbers in the documents come from: ``make bench``."""
