"""
The Python webhooks that are measured beside ours, each a program of its own.

They run in an environment of their own (requirements/bench.txt) and import nothing of this project.
"""
