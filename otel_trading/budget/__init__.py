"""What monitoring may cost, what it does cost, and what is given up to keep to that.

The governor itself is the backend's (``core.govern_start``); here is what writes its policy, reads what it does, and
steers it.  A program that only records imports nothing of this by name; ``configure`` does.
"""
