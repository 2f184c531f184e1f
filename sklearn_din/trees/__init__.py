"""Boosted trees beside the network.

``columns`` makes the trees' input from encoded rows, ``rates`` the click rates of ids and users in
it (no row reads its own label), and ``boosted`` fits the trees and keeps them as plain arrays.
"""
