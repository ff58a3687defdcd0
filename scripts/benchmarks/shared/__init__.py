"""What several benchmarks need: options, progress, tables, and single layers in both libraries."""
