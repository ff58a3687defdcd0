"""What several benchmarks need: options, tables, and single layers in both libraries."""
