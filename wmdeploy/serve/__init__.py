"""A world model to play: one process, many players, each in a dream of its own.

clips or a game -> starts -> players -> schedule -> pool of rows -> pictures -> pages
"""
