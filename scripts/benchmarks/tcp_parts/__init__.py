"""The parts of bench_tcp.py: the cable, the processes that train over it, the measurements, the page."""
