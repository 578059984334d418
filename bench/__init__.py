"""Benches: Feedmill and cryptofeed 2.5.0 behind one loopback exchange, in one run on one machine (``make bench``)."""
