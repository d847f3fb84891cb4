"""
The checks of `client-ip doctor`: one row each, a function of what was read.

A check reads no cluster: it is given the Evidence, from a cluster or from a bundle, so that both ask the same.
"""
