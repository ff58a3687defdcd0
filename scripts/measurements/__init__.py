"""The parts of scripts/measure_gpu.py: what each measures, the process it runs in, and the page of all."""
