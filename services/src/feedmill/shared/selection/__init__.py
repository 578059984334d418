"""``instruments.select``: which instruments of the venue's list a feed works on, and how its processes agree on it.

One receiver of the feed reads the list and writes what came of it to Redis (:mod:`.record`); all processes of the feed
follow that record as they follow a changed manifest (:mod:`.follower`). The choice itself is pure (:mod:`.pick`).
"""
