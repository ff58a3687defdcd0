"""The parts of bench_peers.py: networks, ours and the peers, the check, the timing, the page."""
